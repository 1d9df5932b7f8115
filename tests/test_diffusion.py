"""The noise schedule and the samplers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bidiffsr_arch.diffusion.samplers import known_samplers
from bidiffsr_arch.diffusion.schedule import Diffusion
from bidiffsr_arch.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = dict(
    scheduler_type="DDIM",
    schedule="linear",
    n_timestep=2000,
    linear_start=1e-6,
    linear_end=1e-2,
    prediction_type="epsilon",
    num_inference_steps=50,
    is_guidance=False,
    guidance_scale=7.5,
)
# Each must work with every kind of prediction. Left out are two that take seconds to build.
SAMPLERS = sorted(set(known_samplers()) - {"KDPM2Discrete", "KDPM2AncestralDiscrete"})


def test_ddim_follows_the_references_trajectory():
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "ddim50_trajectory.npz").items()}
    diffusion = Diffusion(REFERENCE)
    seen, times = [], []

    def predict(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        # The reference's own x_t is what the network sees: this network doubles a rounding error at each step, so that
        # its own trajectory differs between CPUs from the tenth step on.
        reference_x_t = golden["traj"][len(seen)]
        seen.append(x_t)
        times.append(int(time))
        return torch.sin(3 * reference_x_t + time / 500)

    seen.append(diffusion.sample(predict, golden["traj"][0]))
    assert times == golden["timesteps"].tolist()
    torch.testing.assert_close(diffusion.alphas_cumprod, golden["alphas_cumprod"].float())
    # Fifty float32 steps of order 1.
    torch.testing.assert_close(torch.stack(seen), golden["traj"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_noising_and_target_follow_their_formulas(prediction_type):
    diffusion = Diffusion(REFERENCE | dict(prediction_type=prediction_type))
    x0, noise, time = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([10, 1990])
    betas = np.linspace(1e-6, 1e-2, 2000)
    abar = torch.from_numpy(np.cumprod(1 - betas))[time].float().reshape(2, 1, 1, 1)
    x_t = diffusion.add_noise(x0, noise, time)
    torch.testing.assert_close(x_t, abar.sqrt() * x0 + (1 - abar).sqrt() * noise, atol=1e-5, rtol=1e-4)
    expected = dict(epsilon=noise, sample=x0, v_prediction=abar.sqrt() * noise - (1 - abar).sqrt() * x0)
    target = diffusion.target(x0, noise, time)
    torch.testing.assert_close(target, expected[prediction_type], atol=1e-5, rtol=1e-4)
    # A perfect prediction leads back to the very noise.
    torch.testing.assert_close(diffusion.clipped_noise(target, x_t, time), noise, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_arrives_at_what_a_perfect_network_predicts(name, prediction_type):
    diffusion = Diffusion(REFERENCE | dict(scheduler_type=name, prediction_type=prediction_type))
    x0 = torch.linspace(-0.9, 0.9, 48).reshape(1, 3, 4, 4)

    def predict(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        abar = diffusion.abar(time)[:, None, None, None]
        noise = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
        return dict(epsilon=noise, sample=x0, v_prediction=abar.sqrt() * noise - (1 - abar).sqrt() * x0)[
            prediction_type
        ]

    out = diffusion.sample(predict, torch.randn_like(x0), [torch.Generator().manual_seed(0)], steps=20)
    # Some samplers end at t = 0 instead of behind it, and leave a sigma of a thousandth of noise.
    torch.testing.assert_close(out, x0, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_clips_what_the_network_predicts(name):
    diffusion = Diffusion(REFERENCE | dict(scheduler_type=name, prediction_type="sample"))
    out = diffusion.sample(lambda x, t: torch.full_like(x, 7.0), torch.randn(1, 3, 4, 4), [torch.Generator()], steps=10)
    torch.testing.assert_close(out, torch.ones_like(out), atol=5e-3, rtol=0)


def test_samplers_that_draw_noise_are_reproducible_by_generator():
    diffusion = Diffusion(REFERENCE | dict(scheduler_type="DDPM"))
    noise = torch.randn(2, 3, 4, 4)

    def run(seeds: list[int]) -> torch.Tensor:
        return diffusion.sample(lambda x, t: 0.1 * x, noise, [torch.Generator().manual_seed(s) for s in seeds], steps=5)

    both = run([1, 2])
    assert torch.equal(both, run([1, 2])) and not torch.equal(both, run([1, 3]))
    assert torch.equal(both[0], run([1, 3])[0])


def test_noise_level_is_the_root_of_abar():
    diffusion = Diffusion(REFERENCE, time_input="noise_level")
    time = torch.tensor([0, 999])
    torch.testing.assert_close(diffusion.network_time(time), diffusion.alphas_cumprod[time].sqrt())


def test_other_options_reach_the_scheduler():
    diffusion = Diffusion(
        dict(scheduler_type="DDIMScheduler", schedule="cosine", timestep_spacing="trailing", n_timestep=100)
    )
    assert diffusion.options["beta_schedule"] == "squaredcos_cap_v2"
    times = []
    diffusion.sample(lambda x, t: times.append(int(t)) or x, torch.zeros(1, 1, 1, 1), steps=4)
    assert times == [99, 74, 49, 24]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheduler_type": "DIM"}, "scheduler_type to be one of .*DDIM"),
        ({"scheduler_type": "FlowMatchEulerDiscrete"}, "scheduler_type to be one of"),
        ({"shedule": "linear"}, "did you mean schedule"),
        ({"schedule": "quadratic"}, "expected a beta_schedule that diffusers' DDIMScheduler takes"),
        ({"prediction_type": "noise"}, "prediction_type to be one of epsilon"),
        ({"num_inference_steps": 0}, "num_inference_steps to be a whole number"),
        ({"n_timestep": 1.5}, "n_timestep to be a whole number"),
        ({"is_guidance": True}, "expected is_guidance: false"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(InputError, match=message):
        Diffusion(REFERENCE | change)
    named = {"DDIM", "DDPM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "HeunDiscrete"}
    assert named <= set(known_samplers()) and "DDIMInverse" not in known_samplers()


@pytest.mark.parametrize("name", sorted(known_samplers()))
def test_every_sampler_has_the_noise_levels_of_training(name):
    diffusion = Diffusion(REFERENCE | {"scheduler_type": name})
    torch.testing.assert_close(diffusion.alphas_cumprod, diffusion.training.alphas_cumprod, rtol=0, atol=0)

"""The noise schedule and the samplers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bidiffsr_arch.config.diffusion import BetaSchedule
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


def diffusion_of(time_input: str = "timestep", **changes) -> Diffusion:
    """A diffusion with the reference's options and some changes."""
    return Diffusion(BetaSchedule.read(REFERENCE | changes, place="beta_schedule"), time_input)


def test_ddim_follows_the_references_trajectory():
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "ddim50_trajectory.npz").items()}
    diffusion = diffusion_of()
    seen, times = [], []

    def predict(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        # The network's inputs are the reference's x_t: this network doubles a rounding error at each step, so that
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
    diffusion = diffusion_of(prediction_type=prediction_type)
    x0, noise, time = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([10, 1990])
    betas = np.linspace(1e-6, 1e-2, 2000)
    abar = torch.from_numpy(np.cumprod(1 - betas))[time].float().reshape(2, 1, 1, 1)
    x_t = diffusion.add_noise(x0, noise, time)
    torch.testing.assert_close(x_t, abar.sqrt() * x0 + (1 - abar).sqrt() * noise, atol=1e-5, rtol=1e-4)
    expected = dict(epsilon=noise, sample=x0, v_prediction=abar.sqrt() * noise - (1 - abar).sqrt() * x0)
    target = diffusion.target(x0, noise, time)
    torch.testing.assert_close(target, expected[prediction_type], atol=1e-5, rtol=1e-4)
    # A perfect prediction gives back the noise.
    torch.testing.assert_close(diffusion.clipped_noise(target, x_t, time), noise, atol=1e-2, rtol=1e-3)


def test_samplers_that_draw_noise_are_reproducible_by_generator():
    diffusion = diffusion_of(scheduler_type="DDPM")
    noise = torch.randn(2, 3, 4, 4)

    def run(seeds: list[int]) -> torch.Tensor:
        return diffusion.sample(lambda x, t: 0.1 * x, noise, [torch.Generator().manual_seed(s) for s in seeds], steps=5)

    both = run([1, 2])
    assert torch.equal(both, run([1, 2])) and not torch.equal(both, run([1, 3]))
    assert torch.equal(both[0], run([1, 3])[0])


def test_noise_level_is_the_root_of_abar():
    diffusion = diffusion_of("noise_level")
    time = torch.tensor([0, 999])
    torch.testing.assert_close(diffusion.network_time(time), diffusion.alphas_cumprod[time].sqrt())


def test_other_options_reach_the_scheduler():
    diffusion = Diffusion(
        BetaSchedule(scheduler_type="DDIMScheduler", schedule="cosine", timestep_spacing="trailing", n_timestep=100)
    )
    assert diffusion.training.config.beta_schedule == "squaredcos_cap_v2"
    times = []
    diffusion.sample(lambda x, t: times.append(int(t)) or x, torch.zeros(1, 1, 1, 1), steps=4)
    assert times == [99, 74, 49, 24]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheduler_type": "DIM"}, "scheduler_type to be one of .*DDIM"),
        ({"scheduler_type": "FlowMatchEulerDiscrete"}, "scheduler_type to be one of"),
        ({"shedule": "linear"}, "did you mean 'schedule'"),
        ({"schedule": "quadratic"}, "expected a beta_schedule that diffusers' DDIMScheduler takes"),
        ({"prediction_type": "noise"}, "prediction_type to be one of epsilon"),
        ({"num_inference_steps": 0}, "num_inference_steps to be an integer"),
        ({"n_timestep": 1.5}, "n_timestep to be an integer"),
        ({"is_guidance": True}, "expected beta_schedule: is_guidance: false"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(InputError, match=message):
        diffusion_of(**change)


@pytest.mark.parametrize("time", [[-1], [100], [0, 2000], [-0.5], [99.5]])
def test_timesteps_outside_the_schedule_are_refused(time):
    diffusion, image = diffusion_of(n_timestep=100, prediction_type="v_prediction"), torch.zeros(len(time), 1, 1, 1)
    for method, arguments in (("add_noise", (image, image)), ("target", (image, image)), ("abar", ())):
        with pytest.raises(InputError, match="timesteps from 0 to 99"):
            getattr(diffusion, method)(*arguments, torch.tensor(time))


def test_both_the_references_and_diffusers_names_are_known():
    values = (7, "cosine", 0.1, 0.2)
    for names in (
        ("n_timestep", "schedule", "linear_start", "linear_end"),
        ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end"),
    ):
        read = BetaSchedule.read(dict(zip(names, values, strict=True)))
        assert (read.n_timestep, read.schedule, read.linear_start, read.linear_end) == values


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_noise_levels_between_timesteps_lie_between_theirs(prediction_type):
    diffusion = diffusion_of("noise_level", prediction_type=prediction_type)
    x0, noise, time = torch.rand(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 1000, 1999])
    for between, levels in ((0.0, diffusion.abar(time).sqrt()), (1.0, diffusion.abar((time - 1).clamp(0)).sqrt())):
        x_t, level, target = diffusion.training_sample(x0, noise, time, torch.full((4,), between))
        levels[0] = levels[0] if between == 0 else 1.0  # no noise at all before the first timestep
        torch.testing.assert_close(level, levels)
        signal, sigma = level[:, None, None, None], (1 - level**2).clamp(0).sqrt()[:, None, None, None]
        torch.testing.assert_close(x_t, signal * x0 + sigma * noise, atol=1e-4, rtol=1e-4)
        wanted = dict(epsilon=noise, sample=x0, v_prediction=signal * noise - sigma * x0)[prediction_type]
        torch.testing.assert_close(target, wanted, atol=1e-3, rtol=1e-3)
    discrete = diffusion.training_sample(x0, noise, time)
    for got, wanted in zip(diffusion.training_sample(x0, noise, time, torch.zeros(4)), discrete, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)

"""Every supported sampler, with every number of steps."""

from typing import get_args

import pytest
import torch

from bidiffsr_arch.config.diffusion import BetaSchedule, Sampler
from bidiffsr_arch.diffusion.schedule import Diffusion
from bidiffsr_arch.errors import InputError

SAMPLERS = get_args(Sampler)
# Two of them take seconds to build on the paper's schedule.
QUICK = sorted({*SAMPLERS} - {"KDPM2Discrete", "KDPM2AncestralDiscrete"})
X0 = torch.linspace(-0.9, 0.9, 48).reshape(1, 3, 4, 4)


def perfect(diffusion: Diffusion):
    """The prediction of a perfect network, which knows X0."""

    def predict(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        abar = diffusion.abar(time)[:, None, None, None]
        noise = (x_t - abar.sqrt() * X0) / (1 - abar).sqrt()
        predictions = dict(epsilon=noise, sample=X0, v_prediction=abar.sqrt() * noise - (1 - abar).sqrt() * X0)
        return predictions[diffusion.schedule.prediction_type]

    return predict


def sample(diffusion: Diffusion, steps: int) -> torch.Tensor:
    noise = torch.randn(X0.shape, generator=torch.Generator().manual_seed(1))
    return diffusion.sample(perfect(diffusion), noise, [torch.Generator().manual_seed(0)], steps=steps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", QUICK)
def test_every_sampler_arrives_at_the_prediction_of_a_perfect_network(name, prediction_type):
    diffusion = Diffusion(BetaSchedule(scheduler_type=name, prediction_type=prediction_type))
    # Some samplers end at t = 0 instead of behind it, and leave a sigma of a thousandth of noise.
    torch.testing.assert_close(sample(diffusion, 20), X0, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", QUICK)
def test_every_sampler_clips_the_prediction(name):
    diffusion = Diffusion(BetaSchedule(scheduler_type=name, prediction_type="sample"))
    out = diffusion.sample(lambda x, t: torch.full_like(x, 7.0), torch.randn(1, 3, 4, 4), [torch.Generator()], steps=10)
    torch.testing.assert_close(out, torch.ones_like(out), atol=5e-3, rtol=0)


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_eta_is_the_noise_of_ddims_steps(eta):
    diffusion = Diffusion(BetaSchedule.read(dict(n_timestep=100, prediction_type="sample", eta=eta)))
    noise = torch.randn(X0.shape, generator=torch.Generator().manual_seed(1))

    def result(seed: int) -> torch.Tensor:
        return diffusion.sample(lambda x, t: x / 2, noise, [torch.Generator().manual_seed(seed)], steps=4)

    sampler, x, generator = diffusion.sampler(4), noise, torch.Generator().manual_seed(0)
    for t in sampler.timesteps:
        x = sampler.step(x / 2, t, x, eta=eta, generator=generator).prev_sample
    assert torch.equal(result(0), x)
    assert torch.equal(result(0), result(1)) == (eta == 0)


def test_eta_has_bounds_and_other_samplers_ignore_it():
    with pytest.raises(InputError, match=r"eta to be a number from 0 to 1, got 1\.5"):
        BetaSchedule.read(dict(eta=1.5), place="beta_schedule")
    plain, noisy = (Diffusion(BetaSchedule.read(dict(scheduler_type="UniPCMultistep", eta=eta))) for eta in (0, 1))
    assert torch.equal(sample(plain, 4), sample(noisy, 4))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_works_or_is_refused_with_the_smallest_one(name, offset):
    total = 20
    diffusion = Diffusion(
        BetaSchedule.read(
            dict(scheduler_type=name, n_timestep=total, linear_start=1e-4, linear_end=0.05, steps_offset=offset)
        )
    )
    done = set()
    for steps in (1, 2, 3, 4, total, total + 1):
        try:
            result = sample(diffusion, steps)
        except InputError as error:
            said = str(error)
            assert "\n" not in said and f"got {steps}" in said
            assert "the least is " in said or steps > total
        else:
            assert torch.isfinite(result).all()
            done.add(steps)
    assert total + 1 not in done and 4 in done
    assert {1, 2, 3} <= done or name == "PNDM"


def test_the_smallest_number_of_steps_works():
    diffusion = Diffusion(BetaSchedule(scheduler_type="PNDM", n_timestep=100))
    with pytest.raises(InputError, match="got 1; the least is 4, the nearest 4"):
        sample(diffusion, 1)
    assert sample(diffusion, 4).isfinite().all()


def test_trailing_timesteps_stay_inside_the_schedule():
    """diffusers rounds 2000 / 61 so that a timestep -1 follows 0, whose noise level would be that of T - 1."""
    diffusion = Diffusion(BetaSchedule(timestep_spacing="trailing"))
    with pytest.raises(InputError, match="got 61; the least is 1, the nearest 60"):
        diffusion.sampler(61)
    assert len(diffusion.sampler(60).timesteps) == 60


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_sampling_that_diverges_is_refused(value):
    diffusion = Diffusion(BetaSchedule(clip_sample=False))
    with pytest.raises(InputError, match="the sampling diverged"):
        diffusion.sample(lambda x, t: torch.full_like(x, value), torch.randn(1, 3, 4, 4), steps=2)


OPTIONS = {  # that diffusers' constructors take, and whose values some of its schedulers cannot use
    "timestep_spacing": ["trailing", "linspace", "nope"], "steps_offset": [5, -1, "a"], "solver_order": [1, 3],
    "use_karras_sigmas": [True], "use_exponential_sigmas": [True], "use_beta_sigmas": [True], "use_lu_lambdas": [True],
    "use_flow_sigmas": [True], "algorithm_type": ["sde-dpmsolver++", "dpmsolver"], "tau_func": ["x"],
    "final_sigmas_type": ["sigma_min"], "rescale_betas_zero_snr": [True], "thresholding": [True],
    "variance_type": ["fixed_large", "learned", "x"], "solver_type": ["bh1", "heun", "x"], "skip_prk_steps": [True],
    "timestep_type": ["continuous"], "trained_betas": [[0.1] * 20, "x"], "interpolation_type": ["log_linear", "x"],
}  # fmt: skip


SPACING = [("timestep_spacing", "trailing"), ("timestep_spacing", "linspace"), ("trained_betas", [0.1] * 20)]
ORDERS = [("solver_order", 1), ("solver_order", 3), ("use_karras_sigmas", True)]
WORKING = {  # some that must not be refused
    "DDIM": [*SPACING, ("thresholding", True)],
    "DPMSolverMultistep": [*SPACING, *ORDERS, ("algorithm_type", "sde-dpmsolver++"), ("solver_type", "heun")],
    "UniPCMultistep": [*SPACING, *ORDERS],  # bh1 fails at the final sigma of 0
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_of_samplers_work_or_are_refused_in_one_line(name):
    """Before training, too, which would fail at its first validation."""
    working = []
    for key, values in OPTIONS.items():
        for value in values:
            options = {"scheduler_type": name, "n_timestep": 20, "num_inference_steps": 7, key: value}
            try:
                diffusion = Diffusion(BetaSchedule.read(options))
                diffusion.rehearse()
                noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
                assert diffusion.sample(lambda x, t: torch.zeros_like(x), noise, [torch.Generator()]).isfinite().all()
            except InputError as error:
                assert "\n" not in str(error)
            else:
                working.append((key, value))
    assert [option for option in WORKING.get(name, ()) if option not in working] == []


def test_other_schedulers_of_diffusers_are_refused():
    for name in ("DDIMInverse", "LCM", "TCD", "UnCLIP", "FlowMatchEulerDiscrete", "CogVideoXDDIM", ""):
        with pytest.raises(InputError, match="scheduler_type to be one of DDIM, "):
            BetaSchedule.read({"scheduler_type": name}, place="beta_schedule")

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


def test_other_schedulers_of_diffusers_are_refused():
    for name in ("DDIMInverse", "LCM", "TCD", "UnCLIP", "FlowMatchEulerDiscrete", "CogVideoXDDIM", ""):
        with pytest.raises(InputError, match="scheduler_type to be one of DDIM, "):
            BetaSchedule.read({"scheduler_type": name}, place="beta_schedule")

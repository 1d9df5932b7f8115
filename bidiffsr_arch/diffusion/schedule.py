"""The noise schedule: adding noise in training, and removing it with a sampler of diffusers.

Nothing here depends on the range of images, on a network's architecture or on BasicSR.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidiffsr_arch.config.diffusion import BetaSchedule
from bidiffsr_arch.diffusion.images import is_finite
from bidiffsr_arch.diffusion.schedulers import arguments, diffusers_class
from bidiffsr_arch.errors import InputError, first_line, nearest

Predict = Callable[[Tensor, Tensor], Tensor]

TRAINING_SCHEDULER = "DDPM"


class Diffusion:
    """A Gaussian diffusion of T steps, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``, and a sampler for it.

    Args:
        schedule: the noise schedule and the sampler.
        time_input: the network's time input: ``timestep`` for t, ``noise_level`` for sqrt(abar_t) (SR3's checkpoints).
    Raises:
        InputError: an argument or a value that the scheduler does not accept.
    """

    def __init__(self, schedule: BetaSchedule, time_input: str = "timestep") -> None:
        self.schedule, self.time_input = schedule, time_input
        self.sampler_class = diffusers_class(schedule.scheduler_type)
        known = arguments(self.sampler_class)
        if not (schedule.model_extra or {}).keys() <= known:
            known |= arguments(diffusers_class(TRAINING_SCHEDULER))
        _refuse_unknown(schedule, known)
        self.sampler_clips = "clip_sample" in arguments(self.sampler_class)
        changes = {} if self.sampler_clips else {"prediction_type": "epsilon"}
        self._template = self._build(self.sampler_class, **changes)
        self.alphas_cumprod: Tensor = self._template.alphas_cumprod

    @cached_property
    def training(self) -> Any:
        """The scheduler that adds noise in training; samplers do not need it."""
        return self._build(diffusers_class(TRAINING_SCHEDULER))

    def _build(self, cls: type, **changes: Any) -> Any:
        given = {key: value for key, value in (self.schedule.arguments() | changes).items() if key in arguments(cls)}
        try:
            return cls(**given)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise InputError(
                f"expected a beta_schedule that diffusers' {cls.__name__} takes, got {given}: {first_line(error)}"
            ) from error

    @property
    def total_step(self) -> int:
        """Number T of training timesteps."""
        return self.schedule.n_timestep

    def add_noise(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """x_t at one timestep per sample. x0, noise: (B, C, H, W); time: (B,) int64 in 0..T-1.

        Raises:
            InputError: a timestep outside 0..T-1.
        """
        self._check_time(time)
        return self.training.add_noise(x0, noise, time)

    def target(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """The training target by ``prediction_type``: the noise, x0, or ``sqrt(abar) noise - sqrt(1 - abar) x0``.
        Arguments as for `add_noise`."""
        if self.schedule.prediction_type == "v_prediction":
            self._check_time(time)
            return self.training.get_velocity(x0, noise, time)
        return noise if self.schedule.prediction_type == "epsilon" else x0

    def training_sample(
        self, x0: Tensor, noise: Tensor, time: Tensor, between: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The network's inputs, x_t and its time (B,), and the training target.

        Args:
            x0, noise: (B, C, H, W).
            time: timesteps (B,), int64 in 0..T-1.
            between: fractions (B,) in 0..1 that select noise levels between those of t and t - 1; None for those of t.
                SR3 draws them uniformly and passes the level to the network (Saharia et al. 2021, Section 2.4).
        Raises:
            InputError: a timestep outside 0..T-1.
        """
        if between is None:
            return self.add_noise(x0, noise, time), self.network_time(time), self.target(x0, noise, time)
        self._check_time(time)
        levels = torch.cat([torch.ones(1), self.alphas_cumprod.sqrt()]).to(x0)  # no noise before t = 0
        level = levels[time + 1] + (levels[time] - levels[time + 1]) * between
        signal, sigma = _factors(level)
        targets = {"epsilon": noise, "sample": x0, "v_prediction": signal * noise - sigma * x0}
        return signal * x0 + sigma * noise, level, targets[self.schedule.prediction_type]

    def network_time(self, time: Tensor) -> Tensor:
        """The network's time input for timesteps (B,): the timesteps, or the noise levels sqrt(abar_t)."""
        return time if self.time_input == "timestep" else self.abar(time).sqrt()

    def abar(self, time: Tensor) -> Tensor:
        """Cumulative product of alphas at timesteps (B,) in 0..T-1, float32; between two timesteps sigma is
        interpolated, as in samplers.

        Raises:
            InputError: a timestep outside 0..T-1.
        """
        self._check_time(time)
        table = self.alphas_cumprod.double().cpu().numpy()
        sigma = np.interp(time.cpu().double().numpy(), np.arange(len(table)), np.sqrt(1 / table - 1))
        return torch.as_tensor(1 / (1 + sigma**2), dtype=torch.float32, device=time.device)

    def _check_time(self, time: Tensor) -> None:
        low, high = float(time.min()), float(time.max())
        if not 0 <= low <= high <= self.total_step - 1:
            raise InputError(f"expected timesteps from 0 to {self.total_step - 1}, got {low:g} to {high:g}")

    def sampler(self, steps: int | None = None, device: torch.device | str = "cpu") -> Any:
        """A new diffusers scheduler with its `timesteps` set; some schedulers call the network more than once per step.

        Args:
            steps: number of sampling steps; ``num_inference_steps`` if None.
        Raises:
            InputError: the scheduler does not support this number of steps; the message has the least and the nearest
                number that it supports.
        """
        steps = self.schedule.num_inference_steps if steps is None else steps
        if not 1 <= steps <= self.total_step:
            raise InputError(f"expected 1 to {self.total_step} steps, at most as many as in training, got {steps}")
        if sampler := self._with_timesteps(steps, device):
            return sampler
        possible = (count for count in range(1, self.total_step + 1) if self._with_timesteps(count))
        around = (count for gap in range(1, self.total_step) for count in (steps - gap, steps + gap))
        near = (count for count in around if 1 <= count <= self.total_step and self._with_timesteps(count))
        raise InputError(
            f"expected a number of steps that {self.schedule.scheduler_type} supports with this beta_schedule, got "
            f"{steps}; the least is {next(possible, 'none')}, the nearest {next(near, 'none')}"
        )

    def _with_timesteps(self, steps: int, device: torch.device | str = "cpu") -> Any | None:
        """A scheduler with this number of steps; None if it fails, or if its timesteps leave 0..T-1 or repeat."""
        sampler = deepcopy(self._template)  # building one computes its betas again
        try:
            sampler.set_timesteps(steps, device=device)
        except (ValueError, IndexError, AssertionError):  # raised by diffusers for too few or too many
            return None
        except TypeError as error:
            raise self._refused(error) from error
        first, last = sampler.timesteps.max(), sampler.timesteps.min()
        return sampler if 0 <= last <= first <= self.total_step - 1 and (last < first or steps == 1) else None

    @torch.no_grad()
    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        generators: list[torch.Generator] | None = None,
        steps: int | None = None,
        progress: Callable[[Any], Any] = iter,
    ) -> Tensor:
        """Denoise pure noise step by step.

        Args:
            predict: (x_t, network time of shape (B,)) -> prediction, same shape as x_t.
            noise: standard normal, (B, C, H, W).
            generators: one per sample, for samplers that draw noise in each step.
            steps: number of sampling steps; ``num_inference_steps`` if None.
            progress: wraps the sequence of timesteps, e.g. in a tqdm bar.
        Returns:
            The predicted x0, (B, C, H, W).
        Raises:
            InputError: the scheduler does not support this number of steps, or the result is not finite.
        """
        x, count = self._denoised(predict, noise, generators, steps, progress)
        if not is_finite(x):
            raise InputError(
                f"expected finite numbers from {self.schedule.scheduler_type} with {count} timesteps, got infinite "
                "ones or NaN: the sampling diverged; choose another number of steps or another sampler"
            )
        return x

    def rehearse(self, steps: int | None = None) -> None:
        """Sample a tiny image with a network that predicts 0, to find options with which sampling would fail.

        Raises:
            InputError: the scheduler does not support the number of steps, or one of its arguments.
        """
        self._rehearsal(steps)

    def draws_noise(self, steps: int | None = None) -> bool:
        """Whether the sampler draws noise after the initial one, as DDPM and ancestral samplers do.

        Raises:
            InputError: as for `rehearse`.
        """
        generator = self._rehearsal(steps)
        return not torch.equal(generator.get_state(), torch.Generator().get_state())

    def _rehearsal(self, steps: int | None) -> torch.Generator:
        """The generator after `rehearse`."""
        noise, generator = torch.zeros(1, 1, 4, 4), torch.Generator()
        self._denoised(lambda x, time: torch.zeros_like(x), noise, [generator], steps, iter)
        return generator

    @torch.no_grad()
    def _denoised(
        self,
        predict: Predict,
        noise: Tensor,
        generators: list[torch.Generator] | None,
        steps: int | None,
        progress: Callable[[Any], Any],
    ) -> tuple[Tensor, int]:
        """The result of sampling, and the number of its timesteps."""
        sampler = self.sampler(steps, noise.device)
        given = {"generator": generators, "eta": self.schedule.eta}
        extra = {name: value for name, value in given.items() if name in arguments(sampler.step)}
        x = noise * sampler.init_noise_sigma
        for t in progress(sampler.timesteps):
            time = t.expand(len(x))
            x_t = sampler.scale_model_input(x, t)
            prediction = predict(x_t, self.network_time(time))
            if not self.sampler_clips:
                prediction = self.clipped_noise(prediction, x_t, time)
            try:
                x = sampler.step(prediction, t, x, **extra).prev_sample
            except (TypeError, ValueError, IndexError, AssertionError) as error:  # for options that fail only here
                raise self._refused(error) from error
        return x, len(sampler.timesteps)

    def _refused(self, error: Exception) -> InputError:
        """The error for arguments with which the scheduler fails only during sampling."""
        kind, further = self.schedule.scheduler_type, self.schedule.model_extra or "its defaults"
        return InputError(f"expected a beta_schedule with which {kind} can sample, got {further} ({first_line(error)})")

    def implied_x0(self, prediction: Tensor, x_t: Tensor, network_time: Tensor) -> Tensor:
        """The x0 implied by a prediction, (B, C, H, W); `network_time` (B,) is the network's time input."""
        level = network_time if self.time_input == "noise_level" else self.abar(network_time).sqrt()
        return PREDICTIONS[self.schedule.prediction_type](prediction, x_t, *_factors(level))

    def clipped_noise(self, prediction: Tensor, x_t: Tensor, time: Tensor) -> Tensor:
        """The noise that corresponds to the clipped prediction of x0, for samplers that cannot clip."""
        signal, sigma = _factors(self.abar(time).sqrt())
        x0 = PREDICTIONS[self.schedule.prediction_type](prediction, x_t, signal, sigma)
        if self.schedule.clip_sample:
            limit = self.schedule.clip_sample_range
            x0 = x0.clamp(-limit, limit)
        return (x_t - signal * x0) / sigma


def _factors(level: Tensor) -> tuple[Tensor, Tensor]:
    """Of noise levels sqrt(abar) (B,), the factors of signal and noise, (B, 1, 1, 1)."""
    signal = level[:, None, None, None]
    return signal, (1 - signal**2).sqrt()


# From a prediction to x0, with signal = sqrt(abar) and sigma = sqrt(1 - abar).
PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda prediction, x_t, signal, sigma: (x_t - sigma * prediction) / signal,
    "sample": lambda prediction, x_t, signal, sigma: prediction,
    "v_prediction": lambda prediction, x_t, signal, sigma: signal * x_t - sigma * prediction,
}


def _refuse_unknown(schedule: BetaSchedule, known: set[str]) -> None:
    unknown = sorted(set(schedule.model_extra or ()) - known)
    if unknown:
        names = sorted({*known, *schedule.names()})
        hint = nearest(unknown[0], names) or f"; known are {', '.join(names)}"
        raise InputError(f"unknown key {unknown[0]!r} in beta_schedule:, no argument of the scheduler{hint}")

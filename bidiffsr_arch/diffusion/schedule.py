"""The noise schedule: how pictures are made noisy in training, and how a diffusers sampler finds the way back.

The option block is the reference's ``beta_schedule``; every other key in it goes to the diffusers scheduler as it is.
This file knows nothing of pictures' ranges, of networks' insides or of BasicSR.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidiffsr_arch.diffusion.samplers import arguments, diffusers_class, sampler_class
from bidiffsr_arch.errors import InputError, choose

Predict = Callable[[Tensor, Tensor], Tensor]

REFERENCE_KEYS = {
    "schedule": "beta_schedule",
    "n_timestep": "num_train_timesteps",
    "linear_start": "beta_start",
    "linear_end": "beta_end",
}
OWN_KEYS = ("scheduler_type", "num_inference_steps", "is_guidance", "guidance_scale")
SCHEDULE_NAMES = {"cosine": "squaredcos_cap_v2"}
# What the paper trains with, and what diffusers' DDIM does by default; other schedulers would choose another spacing
# by themselves.
DEFAULTS = {
    "num_train_timesteps": 2000,
    "beta_schedule": "linear",
    "beta_start": 1e-6,
    "beta_end": 1e-2,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "clip_sample": True,
}
TRAINING_SCHEDULER = "DDPMScheduler"
TIME_INPUTS = ("timestep", "noise_level")


class Diffusion:
    """A Gaussian diffusion of T steps, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``, and a sampler for it.

    Args:
        beta_schedule: the reference's keys ``scheduler_type`` (any scheduler of diffusers, with or without
            "Scheduler"), ``schedule`` (linear, scaled_linear, cosine, …), ``n_timestep``, ``linear_start``,
            ``linear_end``, ``prediction_type`` (epsilon, v_prediction, sample), ``num_inference_steps``,
            ``is_guidance``, ``guidance_scale``; and any argument of the diffusers scheduler (``timestep_spacing``,
            ``clip_sample``, ``clip_sample_range``, …).
        time_input: what the network is told of t: ``timestep`` t itself, ``noise_level`` sqrt(abar_t) (SR3's
            checkpoints).
    Raises:
        InputError: an unknown scheduler, key or value.
    """

    def __init__(self, beta_schedule: Mapping[str, Any], time_input: str = "timestep") -> None:
        options = dict(beta_schedule)
        if options.pop("is_guidance", False):
            raise InputError(
                "expected is_guidance: false, got true: classifier-free guidance needs a network that was also trained "
                "without a condition, which BI-DiffSR is not"
            )
        options.pop("guidance_scale", None)
        self.time_input = choose("time_input", time_input, {name: name for name in TIME_INPUTS})
        self.num_inference_steps = _positive("num_inference_steps", options.pop("num_inference_steps", 50))
        self.sampler_class = sampler_class(str(options.pop("scheduler_type", "DDIM")))

        options = DEFAULTS | {REFERENCE_KEYS.get(key, key): value for key, value in options.items()}
        options["num_train_timesteps"] = _positive("n_timestep", options["num_train_timesteps"])
        options["beta_schedule"] = SCHEDULE_NAMES.get(options["beta_schedule"], options["beta_schedule"])
        known = arguments(self.sampler_class)
        if not options.keys() <= known:
            known |= arguments(diffusers_class(TRAINING_SCHEDULER))
        _refuse_unknown(options, known)
        self.prediction_type = choose("prediction_type", options["prediction_type"], PREDICTIONS)
        self.options = options

        self.sampler_clips = "clip_sample" in arguments(self.sampler_class)
        self.alphas_cumprod: Tensor = self._build(self.sampler_class).alphas_cumprod

    @cached_property
    def training(self) -> Any:
        """The scheduler that adds noise; sampling needs none but its own."""
        return self._build(diffusers_class(TRAINING_SCHEDULER))

    def _build(self, cls: type, **changes: Any) -> Any:
        options = {key: value for key, value in (self.options | changes).items() if key in arguments(cls)}
        try:
            return cls(**options)
        except (NotImplementedError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"expected a beta_schedule that diffusers' {cls.__name__} takes, got {options}: {reason}"
            ) from error

    @property
    def total_step(self) -> int:
        """Number T of training timesteps."""
        return self.options["num_train_timesteps"]

    def add_noise(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """x_t for each sample's own timestep. x0, noise: (B, C, H, W); time: (B,) int64 in 0..T-1."""
        return self.training.add_noise(x0, noise, time)

    def target(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the network is to predict, by ``prediction_type``: the noise, x0, or ``sqrt(abar) noise - sqrt(1 -
        abar) x0``."""
        if self.options["prediction_type"] == "v_prediction":
            return self.training.get_velocity(x0, noise, time)
        return noise if self.options["prediction_type"] == "epsilon" else x0

    def network_time(self, time: Tensor) -> Tensor:
        """What the network is given for timesteps (B,): themselves, or the noise level sqrt(abar_t)."""
        return time if self.time_input == "timestep" else self.abar(time).sqrt()

    def abar(self, time: Tensor) -> Tensor:
        """Cumulative product of alphas at timesteps (B,), float32; between two timesteps sigma is interpolated, as
        samplers do."""
        table = self.alphas_cumprod.double().cpu().numpy()
        sigma = np.interp(time.double().cpu().numpy(), np.arange(len(table)), np.sqrt(1 / table - 1))
        return torch.as_tensor(1 / (1 + sigma**2), dtype=torch.float32, device=time.device)

    def sampler(self, steps: int | None = None, device: torch.device | str = "cpu") -> Any:
        """A new diffusers scheduler whose `timesteps` are set; some call the network more than once a step.

        Args:
            steps: number of sampling steps; ``num_inference_steps`` if None.
        Raises:
            InputError: a number of steps that the scheduler cannot do.
        """
        steps = self.num_inference_steps if steps is None else _positive("steps", steps)
        sampler = self._build(self.sampler_class, **({} if self.sampler_clips else {"prediction_type": "epsilon"}))
        if steps > self.total_step:
            raise InputError(f"expected at most {self.total_step} steps, as many as in training, got {steps}")
        sampler.set_timesteps(steps, device=device)
        return sampler

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
            generators: one for each sample, for samplers that draw noise on the way.
            steps: number of sampling steps; ``num_inference_steps`` if None.
            progress: wraps the sequence of timesteps, e.g. in a tqdm bar.
        Returns:
            The predicted x0, (B, C, H, W).
        """
        sampler = self.sampler(steps, noise.device)
        extra = {"generator": generators} if "generator" in arguments(sampler.step) else {}
        x = noise * sampler.init_noise_sigma
        for t in progress(sampler.timesteps):
            time = t.expand(len(x))
            x_t = sampler.scale_model_input(x, t)
            prediction = predict(x_t, self.network_time(time))
            if not self.sampler_clips:
                prediction = self.clipped_noise(prediction, x_t, time)
            x = sampler.step(prediction, t, x, **extra).prev_sample
        return x

    def clipped_noise(self, prediction: Tensor, x_t: Tensor, time: Tensor) -> Tensor:
        """The noise that leads to the predicted x0 clipped, for samplers that cannot clip themselves."""
        abar = self.abar(time)[:, None, None, None]
        signal, sigma = abar.sqrt(), (1 - abar).sqrt()
        x0 = self.prediction_type(prediction, x_t, signal, sigma)
        if self.options["clip_sample"]:
            limit = self.options.get("clip_sample_range", 1.0)
            x0 = x0.clamp(-limit, limit)
        return (x_t - signal * x0) / sigma


# From a prediction to x0, with signal = sqrt(abar) and sigma = sqrt(1 - abar).
PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda prediction, x_t, signal, sigma: (x_t - sigma * prediction) / signal,
    "sample": lambda prediction, x_t, signal, sigma: prediction,
    "v_prediction": lambda prediction, x_t, signal, sigma: signal * x_t - sigma * prediction,
}


def _positive(option: str, value: Any) -> int:
    if not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise InputError(f"expected beta_schedule: {option} to be a whole number of at least 1, got {value!r}")
    return int(value)


def _refuse_unknown(options: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        names = [*known, *REFERENCE_KEYS, *OWN_KEYS]
        near = get_close_matches(unknown[0], names, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(names))}"
        raise InputError(f"expected keys of beta_schedule that the scheduler takes, got {unknown[0]}{hint}")

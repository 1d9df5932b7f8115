"""How often each timestep is drawn in training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bidiffsr_arch.diffusion.schedule import Diffusion
from bidiffsr_arch.errors import InputError, choose

KINDS = ("uniform", "sampler")


class TimestepWeighting:
    """Draws timesteps of two kinds: ``uniform``, any of 0..T-1, all alike; ``sampler``, those at which the sampler of
    ``beta_schedule: num_inference_steps`` steps calls the network, all alike. A network that will sample in few steps
    need not be good at others.

    Args:
        weights: how often each kind is drawn, ``{uniform: 1, sampler: 3}``; only their ratio matters. None is
            ``{uniform: 1}``.
    Raises:
        InputError: an unknown kind, or weights that are no numbers from 0 on with one above 0.
    """

    def __init__(self, weights: Mapping[str, Any] | None, diffusion: Diffusion) -> None:
        weights = {"uniform": 1.0} if weights is None else weights
        if not isinstance(weights, Mapping):
            raise InputError(f"expected train: timestep_weighting to be kinds with weights, got {weights!r}")
        for kind, weight in weights.items():
            choose("train: timestep_weighting", kind, dict.fromkeys(KINDS))
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
                raise InputError(f"expected train: timestep_weighting: {kind} to be a number from 0 on, got {weight!r}")
        if not sum(weights.values()):
            raise InputError("expected a weight above 0 in train: timestep_weighting, got none")
        self.share = weights.get("sampler", 0.0) / sum(weights.values())
        self.total_step = diffusion.total_step
        # some samplers work between the timesteps of training
        self.visited = diffusion.sampler().timesteps.round().long().clamp(0, self.total_step - 1)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A timestep, int64 (1,), on the generator's device; with uniform weights one draw from the generator."""
        device = generator.device
        time = torch.randint(self.total_step, (1,), generator=generator, device=device)
        if not self.share or torch.rand((), generator=generator, device=device) >= self.share:
            return time
        return self.visited.to(device)[torch.randint(len(self.visited), (1,), generator=generator, device=device)]

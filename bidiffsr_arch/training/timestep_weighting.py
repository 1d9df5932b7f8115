"""Random timesteps for training, with weights."""

import torch
from torch import Tensor

from bidiffsr_arch.config.training import TimestepWeights
from bidiffsr_arch.diffusion.schedule import Diffusion


class TimestepWeighting:
    """Draws timesteps of two kinds, each uniformly: ``uniform``, any of 0..T-1; ``sampler``, those at which the sampler
    of ``beta_schedule: num_inference_steps`` steps calls the network. A network for few sampling steps
    needs no other timesteps.

    Args:
        weights: relative frequency of each kind; None for ``uniform`` alone.
    """

    def __init__(self, weights: TimestepWeights | None, diffusion: Diffusion) -> None:
        self.share = weights.sampler / (weights.uniform + weights.sampler) if weights else 0.0
        self.total_step = diffusion.total_step
        # some samplers use timesteps between those of training
        self.visited = diffusion.sampler().timesteps.round().long().clamp(0, self.total_step - 1)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A timestep, int64 (1,), on the generator's device; with uniform weights one draw from the generator."""
        device = generator.device
        time = torch.randint(self.total_step, (1,), generator=generator, device=device)
        if not self.share or torch.rand((), generator=generator, device=device) >= self.share:
            return time
        return self.visited.to(device)[torch.randint(len(self.visited), (1,), generator=generator, device=device)]

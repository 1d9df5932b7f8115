"""Super-resolution by diffusion: the diffusion target, and sampling of an image for a condition.

The network is any function (x_t, condition, time) -> prediction: a float network, its average, or a packed one.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.diffusion.images import pad_to_multiple
from bidiffsr_arch.diffusion.schedule import Diffusion

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class SuperResolution:
    """Diffusion targets and sampling of a trained network.

    Args:
        options: noise schedule, diffusion target and range of values inside the network.
    Raises:
        InputError: diffusers does not accept the noise schedule.
    """

    def __init__(self, options: DiffusionOptions) -> None:
        self.diffusion = Diffusion(options.beta_schedule, options.time_input)
        self.residual = options.diffuse == "residual"
        self.residual_scale = options.residual_scale
        self.black, self.white = options.data_range

    def normalize(self, image: Tensor) -> Tensor:
        """From [0, 1] to ``data_range``."""
        return image * (self.white - self.black) + self.black

    def denormalize(self, image: Tensor) -> Tensor:
        """From ``data_range`` to [0, 1]."""
        return (image - self.black) / (self.white - self.black)

    def to_x0(self, gt: Tensor, condition: Tensor) -> Tensor:
        """The diffusion target x0: the image, or its scaled residual to the condition. All (B, 3, H, W), in
        ``data_range``."""
        return (gt - condition) * self.residual_scale if self.residual else gt

    def to_image(self, x0: Tensor, condition: Tensor) -> Tensor:
        """The image of a sampled x0; the inverse of `to_x0`."""
        return condition + x0 / self.residual_scale if self.residual else x0

    def implied_image(self, prediction: Tensor, x_t: Tensor, condition: Tensor, network_time: Tensor) -> Tensor:
        """The image in [0, 1], without clipping, that a prediction at one timestep implies.

        Args:
            prediction, x_t, condition: (B, 3, H, W); the condition in ``data_range``.
            network_time: the network's time input, (B,).
        """
        x0 = self.diffusion.implied_x0(prediction, x_t, network_time)
        return self.denormalize(self.to_image(x0, condition))

    @torch.no_grad()
    def sample(
        self,
        network: Network,
        condition: Tensor,
        seeds: Iterable[int | torch.Generator],
        *,
        multiple: int = 1,
        steps: int | None = None,
        progress_bar: bool = False,
    ) -> Tensor:
        """Super-resolve by sampling.

        Args:
            network: called with (B, 3, H, W), (B, 3, H, W) and times (B,).
            condition: the upsampled LR, (B, 3, H, W) in [0, 1], any H and W.
            seeds: one per image; the noise of an image depends on its seed only.
            multiple: the image is padded by reflection until height and width are multiples of it.
            steps: number of sampling steps; that of the schedule if None.
        Returns:
            (B, 3, H, W) in [0, 1].
        """
        height, width = condition.shape[-2:]
        condition = pad_to_multiple(condition, multiple)
        # Drawn on the CPU, so that the noise is the same on all devices.
        generators = [
            seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed) for seed in seeds
        ]
        noise = torch.stack([torch.randn(condition.shape[1:], generator=generator) for generator in generators])
        bar = partial(tqdm, desc="Sample", unit="step", leave=False, disable=not progress_bar)
        result = self.sample_from(noise.to(condition.device), network, condition, generators, steps=steps, progress=bar)
        return result[..., :height, :width]

    @torch.no_grad()
    def sample_from(
        self,
        noise: Tensor,
        network: Network,
        condition: Tensor,
        generators: list[torch.Generator] | None = None,
        *,
        steps: int | None = None,
        progress: Callable[[Any], Any] = iter,
    ) -> Tensor:
        """As `sample`, but from the given noise (B, 3, H, W), without padding; `generators` and `progress` as in
        `Diffusion.sample`."""
        condition = self.normalize(condition)
        x0 = self.diffusion.sample(
            lambda x_t, time: network(x_t, condition, time), noise, generators, steps=steps, progress=progress
        )
        return self.denormalize(self.to_image(x0, condition)).clamp(0, 1)

"""Super-resolution as a diffusion: what is diffused, and how sampling turns a condition into a picture.

The network is any function (x_t, condition, time) -> prediction: a float network, its average, or a packed one.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bidiffsr_arch.diffusion.images import pad_to_multiple
from bidiffsr_arch.diffusion.schedule import Diffusion
from bidiffsr_arch.errors import InputError, choose

Network = Callable[[Tensor, Tensor, Tensor], Tensor]

IS_RESIDUAL = {"image": False, "residual": True}


class SuperResolution:
    """The options that say what a network was trained to do, and their meaning.

    Args:
        options: an option file's top level, or a packed file's metadata:
            beta_schedule: see `Diffusion`.
            diffuse: ``image`` (the paper) or ``residual``, HR minus the enlarged LR (SRDiff, Li et al. 2022).
            residual_scale: what the residual is multiplied by before it is diffused (default 2).
            time_input: ``timestep`` or ``noise_level``, see `Diffusion`.
            data_range: values of black and white inside the network, [0, 1] (the paper) or e.g. [-1, 1] (SR3).
    Raises:
        InputError: an unknown or impossible value.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.diffusion = Diffusion(options.get("beta_schedule") or {}, options.get("time_input", "timestep"))
        self.residual = choose("diffuse", options.get("diffuse", "image"), IS_RESIDUAL)
        self.residual_scale = _number("residual_scale", options.get("residual_scale", 2.0))
        data_range = options.get("data_range", (0, 1))
        if not isinstance(data_range, (list, tuple)) or len(data_range) != 2:
            raise InputError(f"expected data_range to be two numbers, black and white, got {data_range!r}")
        self.black, self.white = (_number("data_range", value) for value in data_range)
        if self.residual_scale == 0 or self.black == self.white:
            raise InputError(
                "expected residual_scale other than 0 and two different values in data_range, got equal ones"
            )

    def inward(self, picture: Tensor) -> Tensor:
        """From [0, 1] to ``data_range``."""
        return picture * (self.white - self.black) + self.black

    def outward(self, picture: Tensor) -> Tensor:
        """From ``data_range`` to [0, 1]."""
        return (picture - self.black) / (self.white - self.black)

    def clean(self, gt: Tensor, condition: Tensor) -> Tensor:
        """What is diffused, x0: the picture, or what the condition lacks, scaled. All (B, 3, H, W), in
        ``data_range``."""
        return (gt - condition) * self.residual_scale if self.residual else gt

    def picture(self, x0: Tensor, condition: Tensor) -> Tensor:
        """The picture of a sampled x0; the inverse of `clean`."""
        return condition + x0 / self.residual_scale if self.residual else x0

    @torch.no_grad()
    def sample(
        self,
        network: Network,
        condition: Tensor,
        seeds: Iterable[int],
        *,
        multiple: int = 1,
        steps: int | None = None,
        progress_bar: bool = False,
    ) -> Tensor:
        """Super-resolve by sampling.

        Args:
            network: called with (B, 3, H, W), (B, 3, H, W) and times (B,).
            condition: the enlarged LR, (B, 3, H, W) in [0, 1], any H and W.
            seeds: one for each picture; its noise depends on nothing else.
            multiple: height and width that the network takes are multiples of it; the picture is reflected up to there.
            steps: sampling steps; the schedule's own number if None.
        Returns:
            (B, 3, H, W) in [0, 1].
        """
        height, width = condition.shape[-2:]
        condition = pad_to_multiple(condition, multiple)
        # Drawn on the CPU, so that all devices see the same noise.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
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
        """As `sample`, from this noise (B, 3, H, W) and with sides that the network takes; `generators` and `progress`
        as in `Diffusion.sample`."""
        condition = self.inward(condition)
        x0 = self.diffusion.sample(
            lambda x_t, time: network(x_t, condition, time), noise, generators, steps=steps, progress=progress
        )
        return self.outward(self.picture(x0, condition)).clamp(0, 1)


def _number(option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"expected {option} to be a number, got {value!r}")
    return float(value)

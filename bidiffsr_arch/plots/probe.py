"""A network that is run on a noised photograph, as in training, while some of its layers are watched."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import Trained
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.diffusion.images import enlarge
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.networks import Weights
from bidiffsr_arch.upscale.photo import read_photo

SIDE = 24  # crops are multiples of it, so that every scale and every network divides them


class Probe:
    """A network, and a photograph with which it is tried.

    Args:
        weights: of a float network.
        photograph: the high-resolution picture, uint8 (H, W, 3), sides multiples of the scale and of what the network
            takes.
        seed: of the noise.
    """

    def __init__(self, weights: Weights, photograph: np.ndarray, seed: int = 0) -> None:
        self.network: nn.Module = weights.network
        self.process = SuperResolution(Trained.part_of(weights.options))
        low, high = (as_tensor(picture) for picture in (imresize(photograph, 1 / weights.scale), photograph))
        self.condition = self.process.inward(enlarge(low, weights.scale))
        self.x0 = self.process.clean(self.process.inward(high), self.condition)
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def run(self, timestep: int) -> Tensor:
        """The network's prediction for the photograph noised to `timestep`, (1, 3, H, W)."""
        diffusion, time = self.process.diffusion, torch.tensor([timestep])
        x_t = diffusion.add_noise(self.x0, self.noise, time)
        return self.network(x_t, self.condition, diffusion.network_time(time))

    def timesteps(self, count: int) -> list[int]:
        """`count` timesteps evenly from 0 to T - 1."""
        return torch.linspace(0, self.process.diffusion.total_step - 1, count).round().int().tolist()


@contextmanager
def watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """The tensors with which each of `modules` is called next, by its name."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple) -> None:
            seen[name] = [value.detach() for value in inputs if isinstance(value, Tensor) and value.ndim == 4]

        handles.append(modules[name].register_forward_pre_hook(hook))

    handles: list = []
    try:
        for name in modules:
            keep(name)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layer_of(network: nn.Module, kind: type[nn.Module], name: str | None) -> tuple[str, nn.Module]:
    """The layer of a class that is called `name`; the one halfway through the network if None.

    Raises:
        InputError: there is none; the names that there are, are listed.
    """
    layers = {found: module for found, module in network.named_modules() if isinstance(module, kind)}
    if not layers:
        raise InputError(f"expected a network with a {kind.__name__}, got {type(network).__name__}, which has none")
    if name is None:
        name = list(layers)[len(layers) // 2]
    return name, choose("--layer", name, layers)


def photograph(path: Path, most: int) -> np.ndarray:
    """The middle of a picture in colour, uint8 (H, W, 3), of at most `most` pixels a side, in multiples of 24.

    Raises:
        InputError: no picture, of 16 bits, or too small.
    """
    pixels = read_photo(path).pixels
    if pixels.dtype != np.uint8:
        raise InputError(f"expected a picture of 8 bits, got {path} with 16; convert it")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, 2)
    height, width = (min(side, most) // SIDE * SIDE for side in colour.shape[:2])
    if not height or not width:
        raise InputError(f"expected pictures and crops of at least {SIDE}x{SIDE} pixels, got {path}, cut to {most}")
    top, left = (colour.shape[0] - height) // 2, (colour.shape[1] - width) // 2
    return np.ascontiguousarray(colour[top : top + height, left : left + width])


def as_tensor(picture: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) as (1, 3, H, W) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1)[None] / 255


def as_picture(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1], clipped, as uint8 (H, W, 3)."""
    return (tensor[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

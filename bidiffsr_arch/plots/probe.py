"""Runs a network on a noised photograph, as in training, and records the inputs of its layers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.networks import Weights
from bidiffsr_arch.upscale.photo import read_photo

MULTIPLE = 24  # of crops' sides: divisible by all scales and network multiples in use


class Probe:
    """A float network and a photograph as its input.

    Args:
        weights: a float network and its options.
        photograph: high-resolution image, uint8 (H, W, 3), sides multiples of the scale and of the network's multiple.
        seed: seed of the noise.
    """

    def __init__(self, weights: Weights, photograph: np.ndarray, seed: int = 0) -> None:
        self.network: nn.Module = weights.network
        self.process = SuperResolution(DiffusionOptions.part_of(weights.options))
        low, high = (as_tensor(image) for image in (imresize(photograph, 1 / weights.scale), photograph))
        self.condition = self.process.normalize(upsample(low, weights.scale))
        self.x0 = self.process.to_x0(self.process.normalize(high), self.condition)
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def run(self, timestep: int) -> Tensor:
        """The network's prediction for the photograph noised to `timestep`, (1, 3, H, W)."""
        diffusion, time = self.process.diffusion, torch.tensor([timestep])
        x_t = diffusion.add_noise(self.x0, self.noise, time)
        return self.network(x_t, self.condition, diffusion.network_time(time))

    def timesteps(self, count: int) -> list[int]:
        """`count` evenly spaced timesteps from 0 to T - 1."""
        return torch.linspace(0, self.process.diffusion.total_step - 1, count).round().int().tolist()


@contextmanager
def recorded_inputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Record the feature maps with which each module is called inside the context, by the module's name.

    A module's later call replaces the record of its earlier one.
    """
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
    """Name and module of a layer of class `kind`; if `name` is None, the one halfway through the network.

    Raises:
        InputError: there is no such layer; the message lists the layers of that class.
    """
    layers = {found: module for found, module in network.named_modules() if isinstance(module, kind)}
    if not layers:
        raise InputError(f"expected a network with a {kind.__name__}, got {type(network).__name__}, which has none")
    if name is None:
        name = list(layers)[len(layers) // 2]
    return name, choose("--layer", name, layers)


def photograph(path: Path, max_side: int) -> np.ndarray:
    """Center crop of an image as RGB, uint8 (H, W, 3); sides are multiples of 24 and at most `max_side`.

    Raises:
        InputError: it is no image, has 16 bits per channel, or is too small.
    """
    pixels = read_photo(path).pixels
    if pixels.dtype != np.uint8:
        raise InputError(f"expected an image with 8 bits per channel, got {path} with 16; convert it")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, 2)
    height, width = (min(side, max_side) // MULTIPLE * MULTIPLE for side in colour.shape[:2])
    if not height or not width:
        raise InputError(
            f"expected images and crops of at least {MULTIPLE}x{MULTIPLE} pixels, got {path} cropped to {max_side}"
        )
    top, left = (colour.shape[0] - height) // 2, (colour.shape[1] - width) // 2
    return np.ascontiguousarray(colour[top : top + height, left : left + width])


def as_tensor(image: np.ndarray) -> Tensor:
    """Convert uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.tensor(image).permute(2, 0, 1)[None] / 255


def as_image(tensor: Tensor) -> np.ndarray:
    """Convert float (1, 3, H, W) to uint8 (H, W, 3), clipping to [0, 1]."""
    return (tensor[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

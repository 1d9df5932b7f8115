"""The base class of packed networks: packed tensors, a backend, an arena, and one sample at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import TILE_SIDE, as_times, check_size
from bidiffsr_arch.packed.arena import Arena
from bidiffsr_arch.packed.backends import Map, choose_backend
from bidiffsr_arch.packed.layers import LayerBuilder, StepContext

# Numba's `workqueue` threading layer allows one Python thread at a time.
ONE_AT_A_TIME = Lock()

NETWORKS: "WeakValueDictionary[int, PackedNetwork]" = WeakValueDictionary()
"""Packed networks by the handles that represent them in compiled graphs."""

_handles = count()


class PackedNetwork(nn.Module, ABC):
    """A network for inference whose layers run on a backend: on the CPU, one sample after the other, without gradients.

    A subclass builds its layers in `build`, runs them in `compute`, and defines its arguments in `forward`.

    Args:
        network: the network as it was trained; only its structure is used, and it may be on the meta device.
        state: its packed tensors (`state.packed_state`), stored unchanged for saving.
        backend: numba-avx2 | numba-portable | torch; the fastest on this machine if None.
    Attributes:
        multiple: height and width of an image must be multiples of it.
        tile_side: side of tiles for upscaling, see `archs.blocks.tile_side`.
        out_channels: channels of the last map; `build` sets it.
        scale_factor: height and width of the result over those of the image; 1 unless `build` sets it.
        patch_size: P of `archs.blocks.image_to_patches`, 1 for maps of pixels.
        scales: factors of the image and of the result.
        weight_bytes: size of the packed tensors.
    """

    out_channels: int
    scale_factor: int = 1
    patch_size: int = 1
    scales: tuple[float, float] = (1.0, 1.0)

    def __init__(self, network: nn.Module, state: Mapping[str, Tensor], backend: str | None = None) -> None:
        super().__init__()
        self.state = dict(state)
        self.backend = choose_backend(backend)
        self.arena = Arena()
        self.multiple: int = getattr(network, "multiple", 1)
        self.tile_side: int = getattr(network, "tile_side", TILE_SIDE)
        self.weight_bytes = sum(tensor.nbytes for tensor in self.state.values())
        self.build(LayerBuilder(self.state, self.backend, self.arena), network)
        self._register()

    @abstractmethod
    def build(self, builder: LayerBuilder, network: Any) -> None:
        """Build the packed layers from those of the training network.

        Raises:
            InputError: a layer that cannot be packed; it is named.
        """

    @abstractmethod
    def compute(self, x: Map, step: StepContext) -> Map:
        """Run the layers on one sample.

        Args:
            x: the image's patches, which may be overwritten but not released.
        Returns:
            A map of the arena with `out_channels` channels; all other maps that were allocated are released.
        """

    def step_contexts(self, time: Tensor) -> list[StepContext]:
        """The `StepContext` of each sample for timesteps (B,); empty unless a subclass overrides this."""
        return [StepContext() for _ in time]

    def run(self, images: Tensor, time: Tensor) -> Tensor:
        """Run all samples of a batch.

        Args:
            images: (B, C, H, W) on any device.
            time: (B,), see `step_contexts`.
        Returns:
            float32, of `result_shape`, on the device of the images.
        """
        on_cpu, time = images.float().cpu(), time.cpu()
        if torch.compiler.is_compiling():
            return torch.ops.bidiffsr_arch.run_packed(on_cpu, time, self.handle).to(images.device)
        return self.run_on_cpu(on_cpu, time).to(images.device)

    @torch.no_grad()
    def run_on_cpu(self, images: Tensor, time: Tensor) -> Tensor:
        """`run` for float32 images on the CPU."""
        with ONE_AT_A_TIME:
            self.backend.begin()
            self.arena.begin((images.shape[-2], images.shape[-1]))
            results = images.new_empty(self.result_shape(images.shape))
            for image, step, result in zip(images, self.step_contexts(time), results, strict=True):
                self._run_sample(image, step, result)
            return results

    def result_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(B, out_channels / patch_size^2, scale_factor * H, scale_factor * W) for images of shape (B, C, H, W)."""
        batch, _, height, width = shape
        return batch, self.out_channels // self.patch_size**2, self.scale_factor * height, self.scale_factor * width

    def _run_sample(self, image: Tensor, step: StepContext, result: Tensor) -> None:
        """Run the layers on an image (C, H, W), and write the result."""
        size = self.patch_size
        channels, height, width = len(image) * size**2, image.shape[1] // size, image.shape[2] // size
        with self.arena.maps((height, width, channels)) as (x,):
            for pixel, values in zip(_pixels(image, size), _pixels_of_map(x, channels, size), strict=True):
                torch.mul(pixel, self.scales[0], out=values)
            out = self.compute(x, step)
            for pixel, values in zip(_pixels(result, size), _pixels_of_map(out, self.out_channels, size), strict=True):
                torch.mul(values, self.scales[1], out=pixel)
            self.arena.release(out)

    def _register(self) -> None:
        self.handle = next(_handles)
        NETWORKS[self.handle] = self

    def __setstate__(self, state: dict) -> None:
        """Give a copy a new handle."""
        super().__setstate__(state)
        self._register()


class PackedDenoiser(PackedNetwork):
    """A packed diffusion network: (x_t, condition, time) -> prediction."""

    def __init__(self, network: Any, state: Mapping[str, Tensor], backend: str | None = None) -> None:
        super().__init__(network, state, backend)
        self.patch_size, self.scales = network.patch_size, (network.input_scale, network.output_scale)

    def forward(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """As `BIDiffSRUNet.forward`: (B, 3, H, W) twice and (B,) or (B, 1) -> (B, out_channel, H, W), float32."""
        check_size(x_t, self.multiple)
        return self.run(torch.cat([condition, x_t], dim=1), as_times(time, len(x_t)))


def _pixels(image: Tensor, size: int) -> list[Tensor]:
    """Views (H/P, W/P, C) of the pixels of an image (C, H, W), one for each place in a patch of P x P.

    Moved place by place, and not as patches, whose rows of P numbers are too short for torch's loops.
    """
    patches = image.unflatten(1, (-1, size)).unflatten(3, (-1, size))
    return [patches[:, :, i, :, j].permute(1, 2, 0) for i in range(size) for j in range(size)]


def _pixels_of_map(x: Map, channels: int, size: int) -> list[Tensor]:
    """The same of a map of patches with `channels` = C P^2."""
    return [torch.from_numpy(x)[..., place : channels : size**2] for place in range(size**2)]


@torch.library.custom_op("bidiffsr_arch::run_packed", mutates_args=(), device_types="cpu")
def _run_packed(images: Tensor, time: Tensor, handle: int) -> Tensor:
    return NETWORKS[handle].run_on_cpu(images, time)


@_run_packed.register_fake
def _(images: Tensor, time: Tensor, handle: int) -> Tensor:
    return images.new_empty(NETWORKS[handle].result_shape(images.shape), dtype=torch.float32)

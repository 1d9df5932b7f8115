"""The base class of packed networks: packed tensors, a backend, an arena, and one sample at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import as_times, check_size, image_to_patches, patches_to_image
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
        out_channels: channels of the result; `build` sets it.
        scale_factor: height and width of the result over those of the image; 1 unless `build` sets it.
        weight_bytes: size of the packed tensors.
    """

    out_channels: int
    scale_factor: int = 1

    def __init__(self, network: nn.Module, state: Mapping[str, Tensor], backend: str | None = None) -> None:
        super().__init__()
        self.state = dict(state)
        self.backend = choose_backend(backend)
        self.arena = Arena()
        self.multiple: int = getattr(network, "multiple", 1)
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
            x: the image, which may be overwritten but not released.
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
            float32 (B, out_channels, scale_factor * H, scale_factor * W), on the device of the images.
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
            samples = zip(images, self.step_contexts(time), strict=True)
            return torch.stack([self._run_sample(image, step) for image, step in samples])

    def _run_sample(self, image: Tensor, step: StepContext) -> Tensor:
        """(C, H, W) -> (out_channels, H', W')."""
        channels, height, width = image.shape
        with self.arena.maps((height, width, channels)) as (x,):
            torch.from_numpy(x)[..., :channels] = image.permute(1, 2, 0)
            out = self.compute(x, step)
            result = torch.from_numpy(out)[..., : self.out_channels].permute(2, 0, 1)
            result = result.clone(memory_format=torch.contiguous_format)
            self.arena.release(out)
        return result

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
        patches = image_to_patches(torch.cat([condition, x_t], dim=1).float(), self.patch_size, self.scales[0])
        return patches_to_image(self.run(patches, as_times(time, len(x_t))), self.patch_size, self.scales[1])


@torch.library.custom_op("bidiffsr_arch::run_packed", mutates_args=(), device_types="cpu")
def _run_packed(images: Tensor, time: Tensor, handle: int) -> Tensor:
    return NETWORKS[handle].run_on_cpu(images, time)


@_run_packed.register_fake
def _(images: Tensor, time: Tensor, handle: int) -> Tensor:
    network = NETWORKS[handle]
    batch, _, height, width = images.shape
    size = (batch, network.out_channels, network.scale_factor * height, network.scale_factor * width)
    return images.new_empty(size, dtype=torch.float32)

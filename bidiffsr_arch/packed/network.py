"""The packed network: a `BIDiffSRUNet` for inference whose 1-bit convolutions work on bits."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from math import prod
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.blocks import (
    ResBlockAttention,
    as_times,
    check_size,
    image_to_patches,
    patches_to_image,
)
from bidiffsr_arch.archs.fusion import Fusion
from bidiffsr_arch.archs.rescale import CPDown, CPUp, PixelDown, PixelUp
from bidiffsr_arch.binary import timestep_group
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.backends import choose_backend
from bidiffsr_arch.packed.fusion import fusion
from bidiffsr_arch.packed.layers import Down, Maker, Moment, PlainConv3x3, ResBlock, Up
from bidiffsr_arch.packed.layout import padded
from bidiffsr_arch.packed.state import packed_state
from bidiffsr_arch.packed.workspace import Workspace

LAYERS = [(ResBlockAttention, ResBlock), ((CPDown, PixelDown), Down), ((CPUp, PixelUp), Up), (Fusion, fusion)]

KEPT = 2**29
"""Bytes that the outermost level's skips may take; more than that are computed again when the decoder needs them: of
the paper's network three ResBlocks of 1-bit convolutions more, beside its 22 of all kinds."""

# Numba's simplest threads do not stand being called from two of Python's at once.
ONE_AT_A_TIME = Lock()


class PackedUNet(nn.Module):
    """Called as the network that it was made from. Works on the CPU, on one sample after the other, without gradients.

    Args:
        network: the training network, for its structure only; may be on the meta device.
        state: its tensors (`state.packed_state`); kept as they are, for saving.
        backend: numba-avx2 | numba-portable | torch; the fastest on this machine if None.
    Attributes:
        weight_bytes: size of the tensors.
    """

    def __init__(self, network: BIDiffSRUNet, state: Mapping[str, Tensor], backend: str | None = None) -> None:
        super().__init__()
        self.state = dict(state)
        self.backend = choose_backend(backend)
        self.workspace = Workspace()
        self.multiple, self.total_step, self.dynamic_group = network.multiple, network.total_step, network.dynamic_group
        self.patch_size = network.patch_size
        self.input_scale, self.output_scale = network.input_scale, network.output_scale
        self.weight_bytes = sum(tensor.nbytes for tensor in self.state.values())

        make = Maker(self.state, self.backend, self.workspace)
        self.first_conv = PlainConv3x3(make, "downs.0")
        self.downs = list(self._layers(make, "downs", list(network.downs)[1:], start=1))
        self.mid = list(self._layers(make, "mid", network.mid))
        self.ups = list(self._layers(make, "ups", network.ups))
        self.final_norm = make.group_norm("final_conv.block.0", network.final_conv.block[0])
        self.final_conv = PlainConv3x3(make, "final_conv.block.3")
        self._time = _TimeTables(self.state, network)

    @staticmethod
    def _layers(make: Maker, name: str, modules: Iterable[nn.Module], start: int = 0):
        for i, module in enumerate(modules, start):
            yield next(layer for kinds, layer in LAYERS if isinstance(module, kinds))(make, f"{name}.{i}", module)

    @torch.inference_mode()
    def forward(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """As `BIDiffSRUNet.forward`: (B, 3, H, W) twice and (B,) or (B, 1) -> (B, out_channel, H, W), float32, on x_t's
        device.
        """
        check_size(x_t, self.multiple)
        time = as_times(time, len(x_t)).cpu()
        groups = timestep_group(time, self.total_step, self.dynamic_group).tolist()
        both = torch.cat([condition, x_t], dim=1).float().cpu()
        pictures = image_to_patches(both, self.patch_size, self.input_scale)
        with ONE_AT_A_TIME:
            self.backend.begin()
            self.workspace.begin(tuple(x_t.shape[-2:]))
            moments = [Moment(added, group) for added, group in zip(self._time(time), groups, strict=True)]
            results = [self._one(picture, moment) for picture, moment in zip(pictures, moments, strict=True)]
        return patches_to_image(torch.stack(results), self.patch_size, self.output_scale).to(x_t.device)

    def _one(self, picture: Tensor, moment: Moment) -> Tensor:
        """One sample in patches, (C P^2, H/P, W/P) -> (out_channel P^2, H/P, W/P)."""
        take, give = self.workspace.take, self.workspace.give
        height, width = picture.shape[1:]
        with self.workspace.maps((height, width, padded(len(picture)))) as (pixels,):
            torch.from_numpy(pixels)[..., : len(picture)] = picture.permute(1, 2, 0)
            x, sums, skips = self._encode(pixels, moment)
            for layer in self.mid:
                sums = layer(x, sums, moment, x)
            for layer in self.ups:
                if isinstance(layer, ResBlock):
                    sums = layer(x, sums, moment, x)
                elif isinstance(layer, Up):
                    out = take((2 * x.shape[0], 2 * x.shape[1], padded(sum(conv.filters for conv in layer.convs) // 4)))
                    sums = layer(x, moment, out)
                    give(x)
                    x = out
                else:
                    skip = skips.pop()
                    skip = self._outermost(pixels, moment, skip)[0] if isinstance(skip, int) else skip
                    sums = layer(x, skip, moment)
                    give(skip)
            return self._last(x, sums)

    def _encode(self, pixels: np.ndarray, moment: Moment) -> tuple[np.ndarray, np.ndarray, list[np.ndarray | int]]:
        """The encoder's last map, its sums, and the skips: maps, or how many ResBlocks the outermost level has to be
        computed with again (`KEPT`)."""
        take, give = self.workspace.take, self.workspace.give
        outer = sum(1 for _ in takewhile(lambda layer: not isinstance(layer, Down), self.downs))
        size = (*pixels.shape[:2], padded(self.first_conv.filters))
        begun = 0 if (outer + 1) * prod(size) * pixels.itemsize <= KEPT else outer
        x, sums = self._outermost(pixels, moment, begun)
        skips = list(range(begun + 1)) if begun else [x]
        for layer in self.downs[begun:]:
            halved = isinstance(layer, Down)
            out = take((x.shape[0] // 2, x.shape[1] // 2, padded(4 * layer.convs[0].filters)) if halved else x.shape)
            sums = layer(x, moment, out) if halved else layer(x, sums, moment, out)
            if x is not skips[-1]:
                give(x)
            x = out
            skips.append(x)
        if x is skips[-1]:
            x = take(x.shape)
            x[...] = skips[-1]
        return x, sums, skips

    def _outermost(self, pixels: np.ndarray, moment: Moment, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """The outermost level's map after so many of its encoder's ResBlocks, and its sums."""
        x = self.workspace.take((*pixels.shape[:2], padded(self.first_conv.filters)))
        sums = self.first_conv(pixels, moment, x)
        for layer in self.downs[:blocks]:
            sums = layer(x, sums, moment, x)
        return x, sums

    def _last(self, x: np.ndarray, sums: np.ndarray | None) -> Tensor:
        height, width, _ = x.shape
        sums = self.backend.sums(x) if sums is None else sums
        filters = self.final_conv.filters
        with self.workspace.maps((height, width, padded(filters))) as (out,):
            self.final_conv(x, None, out, norm=self.backend.group_norm(self.final_norm, sums, height * width))
            self.workspace.give(x)
            return torch.from_numpy(out)[..., :filters].permute(2, 0, 1).clone(memory_format=torch.contiguous_format)


class _TimeTables:
    """Time embedding, and all ResBlocks' ``Linear(Swish(embedding))`` as one product."""

    def __init__(self, state: Mapping[str, Tensor], network: BIDiffSRUNet) -> None:
        self.sinusoid = network.timestep_level_mlp[0]
        self.linear = [(state[f"timestep_level_mlp.{i}.weight"], state[f"timestep_level_mlp.{i}.bias"]) for i in (1, 3)]
        self.names = [name for name, module in network.named_modules() if isinstance(module, ResBlockAttention)]
        parts = [
            (state[f"{name}.res_block.timestep_func.1.weight"], state[f"{name}.res_block.timestep_func.1.bias"])
            for name in self.names
        ]
        self.sizes = [len(bias) for _, bias in parts]
        self.weight, self.bias = torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])

    def __call__(self, time: Tensor) -> list[dict[str, np.ndarray]]:
        """For each sample, what each ResBlock adds."""
        (w1, b1), (w2, b2) = self.linear
        embedding = F.linear(F.silu(F.linear(self.sinusoid(time.float()), w1, b1)), w2, b2)
        added = F.linear(F.silu(embedding), self.weight, self.bias)
        return [dict(zip(self.names, (part.numpy() for part in row.split(self.sizes)), strict=True)) for row in added]


def pack(network: nn.Module, backend: str | None = None) -> PackedUNet:
    """A trained network (or its EMA) as a packed one; the network stays as it is.

    Args:
        network: a `BIDiffSRUNet`, any binarizer and ablation, or one wrapped for distributed training.
        backend: as `PackedUNet`.
    Raises:
        InputError: another kind of network.
    """
    network = getattr(network, "module", network)
    if not isinstance(network, BIDiffSRUNet):
        raise InputError(f"expected a BIDiffSRUNet to pack, got {type(network).__name__}")
    return PackedUNet(network, packed_state(network), backend)

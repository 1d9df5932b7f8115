"""BI-DiffSR packed: 1-bit convolutions by XNOR-popcount, and float kernels for the other layers."""

from collections.abc import Callable, Iterator
from itertools import takewhile
from math import prod
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.blocks import ResBlockAttention
from bidiffsr_arch.archs.fusion import Fusion
from bidiffsr_arch.archs.rescale import CPDown, CPUp, PixelDown, PixelUp
from bidiffsr_arch.binary import timestep_group
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.backends import Map
from bidiffsr_arch.packed.blocks import Down, FinalConv, ResBlock, Up
from bidiffsr_arch.packed.fusion import fusion
from bidiffsr_arch.packed.layers import LayerBuilder, PlainConv3x3, StepContext
from bidiffsr_arch.packed.layout import padded
from bidiffsr_arch.packed.network import PackedDenoiser
from bidiffsr_arch.packed.registry import packs
from bidiffsr_arch.packed.time_table import TimeTable

LAYERS: list[tuple[Any, Callable]] = [
    (ResBlockAttention, ResBlock),
    ((CPDown, PixelDown), Down),
    ((CPUp, PixelUp), Up),
    (Fusion, fusion),
]

KEPT = 2**29
"""Limit in bytes for the stored skips of the outermost level; others are recomputed when the decoder needs them. For
the paper's network that adds three ResBlocks to its 22."""


@packs(BIDiffSRUNet)
class PackedUNet(PackedDenoiser):
    """A packed `BIDiffSRUNet`, any binarizer and ablation; arguments as `PackedNetwork`."""

    def build(self, builder: LayerBuilder, network: BIDiffSRUNet) -> None:
        """See `PackedNetwork.build`."""
        self.total_step, self.dynamic_group = network.total_step, network.dynamic_group
        self.first_conv = PlainConv3x3(builder, "downs.0")
        self.downs = list(_layers(builder, "downs", network.downs, start=1))
        self.mid = list(_layers(builder, "mid", network.mid))
        self.ups = list(_layers(builder, "ups", network.ups))
        self.final_conv = FinalConv(builder, "final_conv", network.final_conv)
        self.out_channels = self.final_conv.filters
        names = [name for name, module in network.named_modules() if isinstance(module, ResBlockAttention)]
        linears = {name: f"{name}.res_block.timestep_func.1" for name in names}
        self.time = TimeTable(self.state, network.timestep_level_mlp[0], "timestep_level_mlp", linears, F.silu)

    def step_contexts(self, time: Tensor) -> list[StepContext]:
        """See `PackedNetwork.step_contexts`."""
        groups = timestep_group(time, self.total_step, self.dynamic_group).tolist()
        return [StepContext(group, added) for group, added in zip(groups, self.time(time), strict=True)]

    def compute(self, x: Map, step: StepContext) -> Map:
        """See `PackedNetwork.compute`."""
        image = x
        x, sums, skips = self._encode(image, step)
        for layer in self.mid:
            sums = layer(x, sums, step, x)
        for layer in self.ups:
            if isinstance(layer, ResBlock):
                sums = layer(x, sums, step, x)
            elif isinstance(layer, Up):
                out = self.arena.allocate((2 * x.shape[0], 2 * x.shape[1], layer.filters))
                sums = layer(x, step, out)
                self.arena.release(x)
                x = out
            else:
                skip = skips.pop()
                skip = self._outermost(image, step, skip)[0] if isinstance(skip, int) else skip
                sums = layer(x, skip, step)
                self.arena.release(skip)
        return self.final_conv(x, sums, step)

    def _encode(self, image: Map, step: StepContext) -> tuple[Map, np.ndarray | None, list[Map | int]]:
        """The encoder's last map, its sums, and the skips: each a map, or the number of ResBlocks of the outermost
        level after which it is recomputed (`KEPT`)."""
        outer = sum(1 for _ in takewhile(lambda layer: not isinstance(layer, Down), self.downs))
        size = (*image.shape[:2], padded(self.first_conv.filters))
        begun = 0 if (outer + 1) * prod(size) * image.itemsize <= KEPT else outer
        x, sums = self._outermost(image, step, begun)
        skips: list[Map | int] = list(range(begun + 1)) if begun else [x]
        for layer in self.downs[begun:]:
            if isinstance(layer, Down):
                out = self.arena.allocate((x.shape[0] // 2, x.shape[1] // 2, layer.filters))
                sums = layer(x, step, out)
            else:
                out = self.arena.allocate((*x.shape[:2], layer.filters))
                sums = layer(x, sums, step, out)
            if x is not skips[-1]:
                self.arena.release(x)
            x = out
            skips.append(x)
        if x is skips[-1]:
            x = self.arena.allocate(x.shape)
            x[...] = skips[-1]
        return x, sums, skips

    def _outermost(self, image: Map, step: StepContext, blocks: int) -> tuple[Map, np.ndarray | None]:
        """The map of the outermost level after `blocks` ResBlocks of the encoder, and its sums."""
        x = self.arena.allocate((*image.shape[:2], self.first_conv.filters))
        sums = self.first_conv(image, step, x)
        for layer in self.downs[:blocks]:
            sums = layer(x, sums, step, x)
        return x, sums


def _layers(builder: LayerBuilder, name: str, modules: nn.ModuleList, start: int = 0) -> Iterator[Any]:
    """The packed layers of a list of modules, from number `start` on."""
    for i, module in enumerate(modules):
        if i < start:
            continue
        make = next((layer for kinds, layer in LAYERS if isinstance(module, kinds)), None)
        if make is None:
            raise InputError(f"expected a layer of BIDiffSRUNet to pack at {name}.{i}, got {type(module).__name__}")
        yield make(builder, f"{name}.{i}", module)

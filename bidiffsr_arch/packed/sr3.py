"""SR3 with this package's full-precision kernels, for comparison: it has no 1-bit layers."""

from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import ResBlockAttention, SelfAttention
from bidiffsr_arch.archs.sr3_arch import Down, SR3UNet, Up
from bidiffsr_arch.packed.backends import Map
from bidiffsr_arch.packed.backends.torch_backend import planes
from bidiffsr_arch.packed.blocks import Attention, FinalConv
from bidiffsr_arch.packed.layers import LayerBuilder, PlainConv1x1, PlainConv3x3, StepContext, bias_of
from bidiffsr_arch.packed.network import PackedDenoiser
from bidiffsr_arch.packed.registry import packs
from bidiffsr_arch.packed.time_table import TimeTable

Sums: TypeAlias = np.ndarray | None


@packs(SR3UNet)
class PackedSR3(PackedDenoiser):
    """An `SR3UNet` with float kernels; arguments as `PackedNetwork`."""

    def build(self, builder: LayerBuilder, network: SR3UNet) -> None:
        """See `PackedNetwork.build`."""
        self.first_conv = PlainConv3x3(builder, "downs.0")
        self.downs = _layers(builder, "downs", network.downs)[1:]
        self.mid = _layers(builder, "mid", network.mid)
        self.ups = _layers(builder, "ups", network.ups)
        self.final_conv = FinalConv(builder, "final_conv", network.final_conv)
        self.out_channels = self.final_conv.filters
        names = [name for name, module in network.named_modules() if isinstance(module, ResBlockAttention)]
        linears = {name: f"{name}.res_block.noise_func.noise_func.0" for name in names}
        self.time = TimeTable(self.state, network.noise_level_mlp[0], "noise_level_mlp", linears, _identity)

    def step_contexts(self, time: Tensor) -> list[StepContext]:
        """See `PackedNetwork.step_contexts`."""
        return [StepContext(added=added) for added in self.time(time)]

    def compute(self, x: Map, step: StepContext) -> Map:
        """See `PackedNetwork.compute`."""
        allocate, release = self.arena.allocate, self.arena.release
        image, x = x, allocate((*x.shape[:2], self.first_conv.filters))
        sums: Sums = self.first_conv(image, step, x)
        channels, skips = self.first_conv.filters, [(x, self.first_conv.filters)]
        for layer in self.downs:
            x, sums = layer(x, sums, step)
            channels = layer.filters
            skips.append((x, channels))
        for layer in self.mid:
            before = x
            x, sums = layer(x, sums, step)
            if before is not skips[-1][0]:
                release(before)
        for layer in self.ups:
            before = x
            if isinstance(layer, ResBlock):
                skip, more = skips.pop()
                before = allocate((*x.shape[:2], channels + more))
                before[..., :channels], before[..., channels : channels + more] = x[..., :channels], skip[..., :more]
                release(skip)
                release(x)
                sums = None
            x, sums = layer(before, sums, step)
            release(before)
            channels = layer.filters
        return self.final_conv(x, sums, step)


class ResBlock:
    """``shortcut(x) + block2(block1(x) + Linear(time))``, then attention where the level has it."""

    def __init__(self, builder: LayerBuilder, name: str, module: ResBlockAttention) -> None:
        self.backend, self.arena, self.name = builder.backend, builder.arena, name
        inner = f"{name}.res_block"
        blocks = [getattr(module.res_block, part).block for part in ("block1", "block2")]
        self.norms = [builder.group_norm(f"{inner}.block{i}.block.0", block[0]) for i, block in enumerate(blocks, 1)]
        self.convs = [PlainConv3x3(builder, f"{inner}.block{i}.block.3") for i in (1, 2)]
        self.filters = self.convs[0].filters
        widens = isinstance(module.res_block.res_conv, nn.Conv2d)
        self.shortcut = PlainConv1x1(builder, f"{inner}.res_conv") if widens else None
        attn = module.attn
        self.attention = Attention(builder, f"{name}.attn", attn) if isinstance(attn, SelfAttention) else None

    def __call__(self, x: Map, sums: Sums, step: StepContext) -> tuple[Map, Sums]:
        """Returns a new map, and its sums if they are known."""
        height, width, _ = x.shape
        norm, out = self.backend.group_norm, self.arena.allocate((height, width, self.filters))
        with self.arena.maps((height, width, self.filters)) as (h,):
            gains = norm(self.norms[0], self.backend.sums(x) if sums is None else sums, height * width)
            inner = self.convs[0](x, step, h, norm=gains, added=step.added[self.name])
            gains = norm(self.norms[1], inner, height * width)
            residual = x
            if self.shortcut is not None:
                self.shortcut(x, step, out)
                residual = out
            sums = self.convs[1](h, step, out, norm=gains, residual=residual)
        if self.attention is None:
            return out, sums
        self.attention(out, sums)
        return out, None


class StridedConv:
    """A 3x3 convolution of stride 2, by torch."""

    def __init__(self, builder: LayerBuilder, name: str, module: Down) -> None:
        self.arena = builder.arena
        self.weight = builder.state[f"{name}.conv.weight"]
        self.bias = torch.from_numpy(bias_of(builder, f"{name}.conv"))
        self.filters = len(self.weight)

    def __call__(self, x: Map, sums: Sums, step: StepContext) -> tuple[Map, Sums]:
        """Returns a new map of half the height and width."""
        result = F.conv2d(planes(x, self.weight.shape[1]), self.weight, self.bias, stride=2, padding=1)
        out = self.arena.allocate((*result.shape[2:], self.filters))
        planes(out, self.filters).copy_(result)
        return out, None


class UpsampledConv:
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution."""

    def __init__(self, builder: LayerBuilder, name: str, module: Up) -> None:
        self.arena, self.conv = builder.arena, PlainConv3x3(builder, f"{name}.conv")
        self.filters = self.conv.filters

    def __call__(self, x: Map, sums: Sums, step: StepContext) -> tuple[Map, Sums]:
        """Returns a new map and its sums."""
        shape = (2 * x.shape[0], 2 * x.shape[1], self.filters)
        out = self.arena.allocate(shape)
        with self.arena.maps(shape) as (large,):
            large[...] = x.repeat(2, axis=0).repeat(2, axis=1)
            return out, self.conv(large, step, out)


LAYERS: dict[type[nn.Module], Any] = {ResBlockAttention: ResBlock, Down: StridedConv, Up: UpsampledConv}


def _layers(builder: LayerBuilder, name: str, modules: nn.ModuleList) -> list[Any]:
    """A packed layer for each module, None for the first convolution."""
    return [
        LAYERS[type(module)](builder, f"{name}.{i}", module) if type(module) in LAYERS else None
        for i, module in enumerate(modules)
    ]


def _identity(x: Tensor) -> Tensor:
    return x

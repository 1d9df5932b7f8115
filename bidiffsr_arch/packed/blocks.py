"""Blocks of 1-bit diffusion UNets: ResBlock, self-attention, and the layers that halve and double the resolution."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bidiffsr_arch.archs.blocks import ResBlockAttention, SelfAttention
from bidiffsr_arch.archs.rescale import CPDown, PixelDown
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.packed.backends import Map
from bidiffsr_arch.packed.layers import BinaryConv, LayerBuilder, PlainConv3x3, StepContext, binary_convs
from bidiffsr_arch.packed.layout import BLOCK


class ResBlock:
    """``x + conv2(conv1(x) + time)``, GroupNorm and Swish before each convolution; then self-attention if the level
    has it.
    """

    def __init__(self, builder: LayerBuilder, name: str, module: ResBlockAttention) -> None:
        self.backend, self.arena, self.name = builder.backend, builder.arena, name
        self.norms, self.convs = [], []
        for part in ("block1", "block2"):
            inner = f"{name}.res_block.{part}"
            block = getattr(module.res_block, part)
            binary = isinstance(block.conv, BinaryConv2d)
            self.norms.append(builder.group_norm(f"{inner}.block.0", block.block[0]))
            self.convs.append(
                BinaryConv(builder, f"{inner}.conv", block.conv) if binary else PlainConv3x3(builder, f"{inner}.conv")
            )
        self.filters = self.convs[0].filters
        attn = module.attn
        self.attention = Attention(builder, f"{name}.attn", attn) if isinstance(attn, SelfAttention) else None

    def __call__(self, x: Map, sums: np.ndarray | None, step: StepContext, out: Map) -> np.ndarray | None:
        """`out` may be x. Returns out's sums, if they are known."""
        height, width, _ = x.shape
        sums = self.backend.sums(x) if sums is None else sums
        norm = self.backend.group_norm
        with self.arena.maps((height, width, self.filters)) as (h,):
            gains = norm(self.norms[0], sums, height * width)
            sums = self.convs[0](x, step, h, norm=gains, added=step.added[self.name])
            sums = self.convs[1](h, step, out, norm=norm(self.norms[1], sums, height * width), residual=x)
        if self.attention is None:
            return sums
        self.attention(out, sums)
        return None


class Attention:
    """``x + out(softmax(q k^T / sqrt(C)) v)`` over all positions, in place.

    With the normalised map n, q k^T = n (Wq^T Wk) n^T, so n itself serves as keys, and Wout is folded into the values:
    (p v) Wout^T = p (n (Wout Wv)^T).
    """

    def __init__(self, builder: LayerBuilder, name: str, module: SelfAttention) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.norm = builder.group_norm(f"{name}.norm", module.norm)
        query, key, value = builder.state[f"{name}.qkv.weight"][:, :, 0, 0].double().chunk(3)
        merged = torch.cat([query.T @ key, (builder.state[f"{name}.out.weight"][:, :, 0, 0].double() @ value).T], 1)
        self.channels, self.weight = len(query), merged.float().contiguous()
        self.bias = builder.state[f"{name}.out.bias"]

    def __call__(self, x: Map, sums: np.ndarray) -> None:
        """Args: x: the map; sums: its sums."""
        height, width, channels = x.shape
        with self.arena.maps((height, width, self.channels)) as (n,):
            self.backend.normalise(x, self.backend.group_norm(self.norm, sums, height * width), n, swish=False)
            tokens = torch.from_numpy(n).view(-1, channels)[:, : self.channels]
            query, value = (tokens @ self.weight).split(self.channels, dim=1)
            mixed = F.scaled_dot_product_attention(query[None, None], tokens[None, None], value[None, None])[0, 0]
            torch.from_numpy(x).view(-1, channels)[:, : self.channels] += mixed + self.bias


class Down:
    """CP-Down or its baseline: one or two convolutions, the second on the other half of the channels and added, then
    PixelUnshuffle(2).
    """

    def __init__(self, builder: LayerBuilder, name: str, module: CPDown | PixelDown) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.convs = binary_convs(builder, name, module)
        self.filters = 4 * self.convs[0].filters

    def __call__(self, x: Map, step: StepContext, out: Map) -> np.ndarray:
        """out: (H/2, W/2, padded 2C); returns its sums."""
        filters = self.convs[0].filters
        shape = (*x.shape[:2], filters)
        with self.arena.maps(shape) as (z,):
            if len(self.convs) == 1:
                self.convs[0](x, step, z)
            elif filters % BLOCK == 0:
                self.convs[0](x, step, z)
                self.convs[1](x, step, z, first=filters, residual=z)
            else:
                with self.arena.maps(shape) as (half,):
                    half[..., :filters] = x[..., :filters]
                    self.convs[0](half, step, z)
                    half[..., :filters] = x[..., filters : 2 * filters]
                    self.convs[1](half, step, z, residual=z)
            return self.backend.space_to_depth(z, filters, out)


class Up:
    """1-bit convolutions of the same input, concatenated, then PixelShuffle(2)."""

    def __init__(self, builder: LayerBuilder, name: str, module: nn.Module) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.convs = binary_convs(builder, name, module)
        self.filters = sum(conv.filters for conv in self.convs) // 4

    def __call__(self, x: Map, step: StepContext, out: Map) -> None:
        """out: (2H, 2W, padded `filters`)."""
        first = 0
        for conv in self.convs:
            with self.arena.maps((*x.shape[:2], conv.filters)) as (z,):
                conv(x, step, z)
                self.backend.depth_to_space(z, conv.filters, out, first)
            first += conv.filters // 4


class FinalConv:
    """GroupNorm, Swish and a convolution: the last layers."""

    def __init__(self, builder: LayerBuilder, name: str, module: nn.Module) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.norm = builder.group_norm(f"{name}.block.0", module.get_submodule("block.0"))
        self.conv = PlainConv3x3(builder, f"{name}.block.3")
        self.filters = self.conv.filters

    def __call__(self, x: Map, sums: np.ndarray | None, step: StepContext) -> Map:
        """Returns a new map and releases x."""
        height, width, _ = x.shape
        sums = self.backend.sums(x) if sums is None else sums
        out = self.arena.allocate((height, width, self.filters))
        self.conv(x, step, out, norm=self.backend.group_norm(self.norm, sums, height * width))
        self.arena.release(x)
        return out

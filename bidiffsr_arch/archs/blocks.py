"""Blocks shared by the networks: time embedding, norm-Swish-convolution, self-attention, patches, checkpointing."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bidiffsr_arch.archs.norm_swish import Dropout, NormSwish, norm_swish_then
from bidiffsr_arch.binary.conv2d import ConvBackend, conv2d
from bidiffsr_arch.errors import InputError


class TimeCode(NamedTuple):
    """The timestep as layers use it: its embedding (B, C) and, in 1-bit networks, its group (B,)."""

    embedding: Tensor
    group: Tensor | None = None


class Sinusoid(nn.Module):
    """``[sin(t w_i) | cos(t w_i)]`` with ``w_i = exp(-ln(1e4) i / n)``, i = 0..n-1, n = channels / 2 (SR3's position
    encoding)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequencies = channels // 2

    def forward(self, time: Tensor) -> Tensor:
        """Map time, float (B,), to (B, channels)."""
        index = torch.arange(self.frequencies, dtype=time.dtype, device=time.device) / self.frequencies
        phase = time[:, None] * torch.exp(-math.log(1e4) * index)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def time_embedding(channels: int) -> nn.Sequential:
    """Sinusoid, Linear to 4 times the width, Swish, Linear back: (B,) -> (B, channels)."""
    return nn.Sequential(
        Sinusoid(channels), nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels)
    )


class PlainConv2d(nn.Conv2d):
    """Full-precision convolution with "same" padding; ignores `time`, which 1-bit convolutions use."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.conv_backend: ConvBackend | None = None

    def forward(self, x: Tensor, time: object = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return conv2d(x, self.weight, self.bias, self.conv_backend)


def norm_swish(channels: int, norm_groups: int, dropout: float = 0.0) -> list[nn.Module]:
    """GroupNorm with Swish, Identity, Dropout: always three layers, since parameter names contain their indices."""
    return [NormSwish(norm_groups, channels), nn.Identity(), Dropout(dropout)]


class NormSwishConv(nn.Module):
    """``conv(Dropout(Swish(GroupNorm(x))))``, full precision, 3x3.

    Args:
        zero_init: start with the convolution at zero, so that the untrained block returns 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_groups: int, *, dropout: float = 0.0, zero_init: bool = False
    ) -> None:
        super().__init__()
        conv = PlainConv2d(in_channels, out_channels, 3)
        if zero_init:
            for parameter in conv.parameters():
                nn.init.zeros_(parameter)
        self.block = nn.Sequential(*norm_swish(in_channels, norm_groups, dropout), conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return norm_swish_then(self.block, x, self.block[3])


class SelfAttention(nn.Module):
    """``x + out(softmax(q k^T / sqrt(C)) v)`` over all positions, one head, ``[q | k | v] = qkv(GroupNorm(x))``.

    Uses `scaled_dot_product_attention`, whose memory grows linearly with the number of positions.
    """

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        # torch's kernels that never store the score matrix need contiguous tokens. The matrix would take 17 GB for a
        # 512x512 image in a network of two levels. A copy, since `contiguous` leaves a single token's stride of 1, with
        # which CUDA finds no kernel.
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].clone(memory_format=torch.contiguous_format)
        h = F.scaled_dot_product_attention(*tokens.chunk(3, dim=-1))
        return x + self.out(h[:, 0].transpose(1, 2).reshape(x.shape))


class ResBlockAttention(nn.Module):
    """A ResBlock, followed by self-attention if `attention` is true."""

    def __init__(self, res_block: nn.Module, channels: int, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.res_block = res_block
        self.attn = SelfAttention(channels, norm_groups) if attention else nn.Identity()
        self.checkpointing = False

    def forward(self, x: Tensor, time: object) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W); `time` is passed to the ResBlock."""
        if not self.checkpointing or not torch.is_grad_enabled():
            return self._forward(x, time)
        contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": self._statistics_once}
        return checkpoint(self._forward, x, time, use_reentrant=False, **contexts)

    def _forward(self, x: Tensor, time: object) -> Tensor:
        return self.attn(self.res_block(x, time))

    def _statistics_once(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Contexts of the checkpointed pass and of its recomputation, which must not update BatchNorm's statistics."""
        return nullcontext(), frozen_statistics(self)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Freeze the running statistics of a network's BatchNorms inside the context, even in training mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def as_times(time: Tensor, batch: int) -> Tensor:
    """Reshape timesteps from (B,) or (B, 1), integer or float, to (B,).

    Raises:
        InputError: they have another shape.
    """
    if time.shape not in ((batch,), (batch, 1)):
        raise InputError(
            f"expected time of shape ({batch},) or ({batch}, 1), one timestep per sample, got {tuple(time.shape)}"
        )
    return time.reshape(batch)


def image_to_patches(x: Tensor, patch_size: int, scale: float = 1.0) -> Tensor:
    """Space-to-depth of ``scale * x``: (B, C, H, W) -> (B, C P^2, H/P, W/P) with P = patch_size."""
    x = x if scale == 1 else x * scale
    return x if patch_size == 1 else F.pixel_unshuffle(x, patch_size)


def patches_to_image(x: Tensor, patch_size: int, scale: float = 1.0) -> Tensor:
    """Depth-to-space of ``scale * x``: (B, C P^2, H, W) -> (B, C, P H, P W) with P = patch_size."""
    x = x if scale == 1 else x * scale
    return x if patch_size == 1 else F.pixel_shuffle(x, patch_size)


def check_patches(patch_size: int, **scales: float) -> None:
    """Raise InputError unless patch_size is at least 1 and all scales, given by name, are positive."""
    if patch_size < 1:
        raise InputError(f"expected patch_size to be 1 or more, got {patch_size}")
    for name, scale in scales.items():
        if not scale > 0:
            raise InputError(f"expected {name} above 0, got {scale}")


TILE_VALUES, TILE_SIDE = 64 * 256 * 256, 256
"""Of the paper's network: the values in its largest map of 256x256 pixels, 16 MB in float32, and that side."""


def tile_side(network: nn.Module, channels_per_pixel: float) -> int:
    """Side in pixels of tiles for upscaling, whose largest map has `TILE_VALUES` values; at most `TILE_SIDE` with
    self-attention, whose cost grows with the square of a tile's pixels.

    Larger tiles compute fewer pixels twice where they overlap, smaller ones need less memory.
    """
    has_attention = any(isinstance(module, SelfAttention) for module in network.modules())
    side = math.isqrt(int(TILE_VALUES / channels_per_pixel))
    return min(side, TILE_SIDE) if has_attention else side


def check_size(x: Tensor, multiple: int) -> None:
    """Raise InputError unless height and width of x (B, C, H, W) are multiples of `multiple`."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise InputError(
            f"expected height and width to be multiples of {multiple}, got {height}x{width}; pad the image first"
        )


def set_checkpointing(network: nn.Module) -> None:
    """Checkpoint every ResBlock: store only its input, and recompute the rest in the backward pass.

    Raises:
        InputError: the network has no ResBlocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResBlockAttention)]
    if not blocks:
        raise InputError(f"expected a network with ResBlocks for checkpointing, got {type(network).__name__}")
    for block in blocks:
        block.checkpointing = True
        for module in block.modules():
            if isinstance(module, NormSwish):
                module.recompute = False

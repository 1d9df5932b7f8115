"""What the networks have in common: time embedding, self-attention, and the norm-Swish-convolution block."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bidiffsr_arch.archs.feed import feed
from bidiffsr_arch.archs.norm_swish import Dropout, NormSwish, normed
from bidiffsr_arch.errors import InputError


class TimeCode(NamedTuple):
    """What a layer may want to know of the timestep: its embedding (B, C) and, in 1-bit networks, its group (B,)."""

    embedding: Tensor
    group: Tensor | None = None


class Sinusoid(nn.Module):
    """``[sin(t w_i) | cos(t w_i)]`` with ``w_i = exp(-ln(1e4) i / n)``, i = 0..n-1, n = channels / 2 (SR3's position
    encoding)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2

    def forward(self, time: Tensor) -> Tensor:
        """time: (B,), float -> (B, channels)."""
        index = torch.arange(self.half, dtype=time.dtype, device=time.device) / self.half
        phase = time[:, None] * torch.exp(-math.log(1e4) * index)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def time_embedding(channels: int) -> nn.Sequential:
    """Sinusoid, Linear to 4 times the width, Swish, Linear back: (B,) -> (B, channels)."""
    return nn.Sequential(
        Sinusoid(channels), nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels)
    )


class PlainConv2d(nn.Conv2d):
    """Full-precision convolution that keeps the picture's size; called like the layers that depend on time, which it
    does not."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, time: object = None) -> Tensor:
        return super().forward(x)


def norm_swish(channels: int, norm_groups: int, dropout: float = 0.0) -> list[nn.Module]:
    """GroupNorm with Swish, nothing, Dropout. Three items in any case, since parameter names count them."""
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
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if zero_init:
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
        self.block = nn.Sequential(*norm_swish(in_channels, norm_groups, dropout), conv)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, in_channels, H, W) -> (B, out_channels, H, W)."""
        norm, _, dropout, conv = self.block
        return feed(normed(norm, dropout, x), conv, again=norm.remake)


class SelfAttention(nn.Module):
    """``x + out(softmax(q k^T / sqrt(C)) v)`` over all positions, one head, ``[q | k | v] = qkv(GroupNorm(x))``.

    Uses `scaled_dot_product_attention`, whose memory grows linearly with the picture.
    """

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> same shape."""
        # Contiguous, since torch's CPU kernel without a score matrix takes no other layout. With the matrix, a picture
        # of 512x512 needs 17 GB in a network of two levels.
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].contiguous()
        h = F.scaled_dot_product_attention(*tokens.chunk(3, dim=-1))
        return x + self.out(h[:, 0].transpose(1, 2).reshape(x.shape))


class ResBlockAttention(nn.Module):
    """A ResBlock, and self-attention after it where the level has it."""

    def __init__(self, res_block: nn.Module, channels: int, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.res_block = res_block
        self.attn = SelfAttention(channels, norm_groups) if attention else nn.Identity()
        self.checkpointing = False

    def forward(self, x: Tensor, time: object) -> Tensor:
        """x: (B, C, H, W); time: whatever the ResBlock takes."""
        if not self.checkpointing or not torch.is_grad_enabled():
            return self._forward(x, time)
        contexts = {} if torch.compiler.is_compiling() else {"context_fn": self._statistics_once}
        return checkpoint(self._forward, x, time, use_reentrant=False, **contexts)

    def _forward(self, x: Tensor, time: object) -> Tensor:
        return self.attn(self.res_block(x, time))

    def _statistics_once(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Contexts of a checkpoint's first and second pass; BatchNorm averages its statistics in the first alone."""
        return nullcontext(), without_averages(self)


@contextmanager
def without_averages(network: nn.Module) -> Iterator[None]:
    """The BatchNorms of a network in training leave their running statistics as they are."""
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
    """Timesteps of shape (B,) or (B, 1), integer or float, as (B,).

    Raises:
        InputError: another shape.
    """
    if time.shape not in ((batch,), (batch, 1)):
        raise InputError(
            f"expected time of shape ({batch},) or ({batch}, 1), one timestep a sample, got {tuple(time.shape)}"
        )
    return time.reshape(batch)


def image_to_patches(x: Tensor, patch_size: int, scale: float = 1.0) -> Tensor:
    """``scale * x``, each patch's pixels as channels (space-to-depth): (B, C, H, W) -> (B, C P^2, H/P, W/P)."""
    x = x if scale == 1 else x * scale
    return x if patch_size == 1 else F.pixel_unshuffle(x, patch_size)


def patches_to_image(x: Tensor, patch_size: int, scale: float = 1.0) -> Tensor:
    """``scale * x``, channels as each patch's pixels (depth-to-space): (B, C P^2, H, W) -> (B, C, P H, P W)."""
    x = x if scale == 1 else x * scale
    return x if patch_size == 1 else F.pixel_shuffle(x, patch_size)


def check_patches(patch_size: int, **scales: float) -> None:
    """Raise InputError for a size or scales, given by name, that no network can have."""
    if patch_size < 1:
        raise InputError(f"expected patch_size to be 1 or more, got {patch_size}")
    for name, scale in scales.items():
        if not scale > 0:
            raise InputError(f"expected {name} above 0, got {scale}")


def check_size(x: Tensor, multiple: int) -> None:
    """Raise InputError unless height and width of x (B, C, H, W) are multiples of `multiple`."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise InputError(
            f"expected height and width to be multiples of {multiple}, got {height}x{width}; pad the picture first"
        )


def set_checkpointing(network: nn.Module) -> None:
    """Let every ResBlock keep its input alone, and compute the rest again in the backward pass.

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
                module.remake = False

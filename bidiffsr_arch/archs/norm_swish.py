"""GroupNorm, Swish and Dropout in sequence, storing less for the backward pass than the separate modules.

GroupNorm and Swish each store their input. Fused, they store only GroupNorm's input and recompute the normalized map.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bidiffsr_arch.archs.recompute import with_recomputed_input
from bidiffsr_arch.binary.conv2d import working_dtype

aten = torch.ops.aten


class _NormSwish(torch.autograd.Function):
    """``Swish(GroupNorm(x))``, computed in float32 or float64."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
    ) -> Tensor:
        ctx.sizes = (*x.shape[:2], x.shape[2] * x.shape[3], groups)
        normed, mean, deviation = aten.native_group_norm(x.to(weight.dtype), weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, bias, mean, deviation)
        ctx.eps = eps
        return F.silu(normed, inplace=True).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, deviation = ctx.saved_tensors
        wide = x.to(weight.dtype)
        normed = aten.native_group_norm(wide, weight, bias, *ctx.sizes, ctx.eps)[0]
        grad = aten.silu_backward(grad.to(weight.dtype), normed)
        grad_x, grad_weight, grad_bias = aten.native_group_norm_backward(
            grad, wide, mean, deviation, weight, *ctx.sizes, [True, True, True]
        )
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


class NormSwish(nn.GroupNorm):
    """``Swish(GroupNorm(x))``, (B, C, H, W) -> same shape, with GroupNorm's parameters.

    Attributes:
        recompute: whether the layer that follows may recompute this result in the backward pass (`norm_swish_then`).
    """

    recompute = True

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Normalize x, (B, C, H, W). The result has type `dtype`; if None, autocast's if it is enabled, else x's."""
        return _NormSwish.apply(x, self.weight, self.bias, self.num_groups, self.eps, dtype or working_dtype(x))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with a mask of one byte per element, which is several times faster to draw on a CPU."""

    def mask(self, x: Tensor) -> Tensor | None:
        """A new mask of x's shape, bool, true for elements that are kept; None if all are kept."""
        if not self.training or self.p == 0:
            return None
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - self.p)
        # Each random 64-bit integer is split into four of 16 bits, which rounds p to a multiple of 2^-16.
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        return (numbers[: x.numel()] >= round(self.p * 2**16) - 2**15).view(x.shape)

    def apply_mask(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x / (1 - p) where the mask is true, else 0."""
        return x if mask is None else (x * mask).mul_(1 / (1 - self.p) if self.p < 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Apply a new mask to x, of any shape."""
        return self.apply_mask(x, self.mask(x))


def norm_swish_then(block: nn.Sequential, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """``layer(Dropout(Swish(GroupNorm(x))))``; the layer's input is recomputed in the backward pass, not stored.

    Args:
        block: begins with a `NormSwish`, a layer that is skipped, and a `Dropout`.
        x: (B, C, H, W).
    """
    norm, _, dropout, *_ = block
    assert isinstance(norm, NormSwish) and isinstance(dropout, Dropout)
    mask, dtype = dropout.mask(x), working_dtype(x)
    return with_recomputed_input(lambda: dropout.apply_mask(norm(x, dtype), mask), layer, enabled=norm.recompute)

"""GroupNorm, Swish and Dropout as the networks chain them, keeping less for the backward pass than their composition.

GroupNorm and Swish each keep their input. Together they need GroupNorm's alone: what lies between is computed again.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from bidiffsr_arch.binary.convolve import working_dtype

aten = torch.ops.aten


class _NormSwish(torch.autograd.Function):
    """``Swish(GroupNorm(x))``, statistics and arithmetic in float32 at least."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
    ) -> Tensor:
        batch, channels, height, width = x.shape
        ctx.sizes = (batch, channels, height * width, groups)
        normed, mean, deviation = aten.native_group_norm(x.to(weight.dtype), weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, bias, mean, deviation)
        ctx.eps = eps
        return F.silu(normed, inplace=True).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, deviation = ctx.saved_tensors
        wide = x.to(weight.dtype)
        normed = aten.native_group_norm(wide, weight, bias, *ctx.sizes, ctx.eps)[0]
        grad = aten.silu_backward(grad.to(weight.dtype), normed)
        grad_x, grad_weight, grad_bias = aten.native_group_norm_backward(
            grad, wide, mean, deviation, weight, *ctx.sizes, [True, True, True]
        )
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


class NormSwish(nn.GroupNorm):
    """``Swish(GroupNorm(x))``, (B, C, H, W) -> same shape; parameters as GroupNorm's.

    Attributes:
        remake: the result may be made again in the backward pass (`feed.feed`).
    """

    remake = True

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """x: (B, C, H, W); dtype: of the result, autocast's or x's if None."""
        return _NormSwish.apply(x, self.weight, self.bias, self.num_groups, self.eps, dtype or working_dtype(x))


class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`; its mask is one byte an element, and on a CPU it is drawn several times faster."""

    def mask(self, x: Tensor) -> Tensor | None:
        """What is kept of x, bool, of its shape; None for all."""
        if not self.training or self.p == 0:
            return None
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - self.p)
        # Four numbers of 16 bits from each one that is drawn; p is so rounded to a multiple of 2^-16.
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        return (numbers[: x.numel()] >= round(self.p * 2**16) - 2**15).view(x.shape)

    def apply_mask(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x where the mask keeps it, scaled so that its mean stays, else 0."""
        return x if mask is None else (x * mask).mul_(1 / (1 - self.p) if self.p < 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_mask(x, self.mask(x))


def normed(norm: NormSwish, dropout: Dropout, x: Tensor) -> Callable[[], Tensor]:
    """What makes ``Dropout(Swish(GroupNorm(x)))``, (B, C, H, W) as x is, as often as it is called, with one mask."""
    mask, dtype = dropout.mask(x), working_dtype(x)
    return lambda: dropout.apply_mask(norm(x, dtype), mask)

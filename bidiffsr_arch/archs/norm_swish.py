"""GroupNorm, Swish and Dropout as the networks chain them, keeping less for the backward pass than their composition.

GroupNorm and Swish each keep their input. Together they need GroupNorm's alone: what lies between is computed again.
"""

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
        return F.silu(normed).to(dtype)

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
    """``Swish(GroupNorm(x))``, (B, C, H, W) -> same shape; parameters as GroupNorm's."""

    def forward(self, x: Tensor) -> Tensor:
        return _NormSwish.apply(x, self.weight, self.bias, self.num_groups, self.eps, working_dtype(x))


class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`, which on a CPU keeps its mask as floats; this one keeps a byte an element."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, self.training)[0] if self.training and self.p > 0 else x

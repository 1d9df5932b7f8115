"""RPReLU as one autograd function that stores at most two bytes per element after a 1-bit convolution."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bidiffsr_arch.binary.convolve import Recompute


class _RPReLU(torch.autograd.Function):
    """See `rprelu`."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        bias0: Tensor,
        slope: Tensor,
        bias1: Tensor,
        recompute: Callable[..., Tensor] | None,
        *arguments: Tensor | None,
    ) -> Tensor:
        ctx.recompute = recompute
        ctx.save_for_backward(bias0, slope, *([z] if recompute is None else arguments))
        y = z + bias0
        return y.clamp(min=0).addcmul_(slope, y.clamp_(max=0)).add_(bias1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bias0, slope, *stored = ctx.saved_tensors
        y = stored[0] + bias0 if ctx.recompute is None else ctx.recompute(*stored).add_(bias0)
        # grad where y > 0, slope * grad elsewhere; torch.where is several times slower on a CPU.
        grad_y = torch.lerp(torch.ops.aten.threshold_backward(grad, y, 0), grad, slope)
        grad_slope = y.clamp_(max=0).mul_(grad).sum_to_size(slope.shape)
        nothing = [None] * (len(ctx.needs_input_grad) - 4)
        return grad_y, grad_y.sum_to_size(slope.shape), grad_slope, grad.sum_to_size(slope.shape), *nothing


def rprelu(z: Tensor, bias0: Tensor, slope: Tensor, bias1: Tensor, recompute: Recompute | None = None) -> Tensor:
    """``PReLU(z + bias0) + bias1`` (ReActNet, Liu et al. 2020, eq. 5).

    Args:
        z: (B, C, H, W).
        bias0, slope, bias1: (B, C, 1, 1) or (1, C, 1, 1), the same shape for all three.
        recompute: how to recompute z; its arguments are stored for the backward pass in place of z.
    """
    function, arguments = recompute or (None, ())
    return _RPReLU.apply(z, bias0, slope, bias1, function, *arguments)

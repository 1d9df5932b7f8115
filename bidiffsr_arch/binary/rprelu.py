"""RPReLU as one autograd function, which keeps two bytes an element at most where a 1-bit convolution is before it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from bidiffsr_arch.binary.convolve import Again


class _RPReLU(torch.autograd.Function):
    """See `rprelu`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        bias0: Tensor,
        slope: Tensor,
        bias1: Tensor,
        again: Callable[..., Tensor] | None,
        *arguments: Tensor | None,
    ) -> Tensor:
        ctx.again = again
        ctx.save_for_backward(bias0, slope, *([z] if again is None else arguments))
        y = z + bias0
        return y.clamp(min=0).addcmul_(slope, y.clamp_(max=0)).add_(bias1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        bias0, slope, *kept = ctx.saved_tensors
        y = kept[0] + bias0 if ctx.again is None else ctx.again(*kept).add_(bias0)
        # The gradient itself where y > 0, slope times it elsewhere; torch.where is several times slower on a CPU.
        grad_y = torch.lerp(torch.ops.aten.threshold_backward(grad, y, 0), grad, slope)
        grad_slope = y.clamp_(max=0).mul_(grad).sum_to_size(slope.shape)
        nothing = [None] * (len(ctx.needs_input_grad) - 4)
        return grad_y, grad_y.sum_to_size(slope.shape), grad_slope, grad.sum_to_size(slope.shape), *nothing


def rprelu(z: Tensor, bias0: Tensor, slope: Tensor, bias1: Tensor, again: Again | None = None) -> Tensor:
    """``PReLU(z + bias0) + bias1`` (ReActNet, Liu et al. 2020, eq. 5).

    Args:
        z: (B, C, H, W).
        bias0, slope, bias1: (B, C, 1, 1) or (1, C, 1, 1), all three the same.
        again: how to have z again, whose arguments are kept for the backward pass in place of z.
    """
    function, arguments = again or (None, ())
    return _RPReLU.apply(z, bias0, slope, bias1, function, *arguments)

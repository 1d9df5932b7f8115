"""RPReLU as one autograd function, which keeps two bytes an element where a 1-bit convolution comes before it."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _RPReLU(torch.autograd.Function):
    """See `rprelu`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        bias0: Tensor,
        slope: Tensor,
        bias1: Tensor,
        counts: Tensor | None,
        scale: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(z if counts is None else counts, scale, bias0, slope)
        y = z + bias0
        return y.clamp(min=0).addcmul_(slope, y.clamp_(max=0)).add_(bias1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale, bias0, slope = ctx.saved_tensors
        y = kept + bias0 if scale is None else (kept * scale).add_(bias0)
        # The gradient itself where y > 0, slope times it elsewhere; torch.where is several times slower on a CPU.
        grad_y = torch.lerp(torch.ops.aten.threshold_backward(grad, y, 0), grad, slope)
        grad_slope = y.clamp_(max=0).mul_(grad).sum_to_size(slope.shape)
        return grad_y, grad_y.sum_to_size(slope.shape), grad_slope, grad.sum_to_size(slope.shape), None, None


def rprelu(
    z: Tensor, bias0: Tensor, slope: Tensor, bias1: Tensor, counts: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    """``PReLU(z + bias0) + bias1`` (ReActNet, Liu et al. 2020, eq. 5).

    Args:
        z: (B, C, H, W).
        bias0, slope, bias1: (B, C, 1, 1) or (1, C, 1, 1), all three the same.
        counts, scale: integers and floats of which z is exactly the product; they are kept for the backward pass in
            place of z.
    """
    return _RPReLU.apply(z, bias0, slope, bias1, counts, scale)

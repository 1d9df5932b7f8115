"""RPReLU as one autograd function that stores at most two bytes per element after a 1-bit convolution."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bidiffsr_arch.binary.convolve import ScaledSums

# The operators of F.prelu, which itself takes no slopes that differ between samples.
PRELU, PRELU_BACKWARD = torch.ops.aten._prelu_kernel, torch.ops.aten._prelu_kernel_backward


class _RPReLU(torch.autograd.Function):
    """See `rprelu`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, bias0: Tensor, slope: Tensor, bias1: Tensor, *sums_and_scale: Tensor) -> Tensor:
        ctx.save_for_backward(bias0, slope, *(sums_and_scale or [z]))
        y = z + bias0
        if torch.compiler.is_compiling():  # the ONNX exporter does not broadcast the operator's slopes
            return y.clamp(min=0) + slope * y.clamp(max=0) + bias1
        return PRELU(y, slope).add_(bias1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bias0, slope, *stored = ctx.saved_tensors
        y = ScaledSums(*stored).result().add_(bias0) if len(stored) > 1 else stored[0] + bias0
        grad_y, grad_slopes = PRELU_BACKWARD(grad, y, slope)
        nothing = [None] * (len(ctx.needs_input_grad) - 4)
        sums = (part.sum_to_size(slope.shape) for part in (grad_y, grad_slopes, grad))
        return grad_y, *sums, *nothing


def rprelu(z: Tensor, bias0: Tensor, slope: Tensor, bias1: Tensor, sums: ScaledSums | None = None) -> Tensor:
    """``PReLU(z + bias0) + bias1`` (ReActNet, Liu et al. 2020, eq. 5).

    Args:
        z: (B, C, H, W).
        bias0, slope, bias1: (B, C, 1, 1) or (1, C, 1, 1), the same shape for all three.
        sums: z as integers and scales, which are stored for the backward pass in its place.
    """
    return _RPReLU.apply(z, bias0, slope, bias1, *(sums or ()))

"""Training on a CPU: 3x3 convolutions in full precision, and gradients of all 3x3 convolutions, by Winograd's
F(4x4, 3x3).

It needs a quarter of the multiplications of direct convolution. As in cuDNN, results differ from those of direct
convolution by rounding. The kernels are operators of `torch.library`, because `torch.compile` cannot trace them.
"""

import numpy as np
import torch
from torch import Tensor

from bidiffsr_arch.binary.conv2d import ConvBackend
from bidiffsr_arch.packed.layout import aligned

CHANNELS = 32
"""Numbers of channels must be multiples of it: kernels handle so many channels together."""

# Smaller convolutions are computed by oneDNN. Times as fast as oneDNN, forward and gradients, with AVX2; with AVX-512
# (2 threads on two quiet cores, Xeon at 2.8 GHz, 2026-11-26):
#   2 samples, 64 to 64 channels, 128x128    2^30                        2.35 and 2.75; 1.78 and 1.99
#   2 samples, 512 to 512 channels, 16x16    2^30                        1.89 and 1.98; 1.30 and 1.35
#   2 samples, 32 to 32 channels, 64x64      2^26 multiply-accumulates   1.50 and 1.52; 1.14 and 1.38
#   2 samples, 64 to 64 channels, 32x32      2^26                        1.47 and 1.45; 1.00 and 1.28
#   2 samples, 64 to 64 channels, 16x16      2^24                        0.98 and 0.98; 1.14 and 0.94
#   2 samples, 512 to 512 channels, 12x12    2^29, 288 pixels            1.45 and 1.63; 1.21 and 1.25
#   2 samples, 256 to 256 channels, 9x9      2^26, 162 pixels            0.97 and 1.05; 0.86 and 0.96
MIN_MACS = 2**25
MIN_PIXELS = 256
"""Pixels of a batch for which weights are transformed, at least."""

MIN_SIZE = 8
"""Height and width of a map, at least; of smaller ones, a large part of each tile lies outside of the image."""

UNITS = 32
"""Units of work into which the gradient of a weight is divided at least, if there are enough tiles."""


@torch.library.custom_op(
    "bidiffsr_arch::winograd_conv2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor weight, Tensor? bias, bool transposed) -> Tensor",
)
def _winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    from bidiffsr_arch.packed.kernels.batch_winograd import convolve_batch

    out = _new_maps(x, weight, bias, transposed)
    filters, channels = out.shape[1], x.shape[1]
    add = x.new_zeros(filters) if bias is None else bias
    taps = x.new_empty(9, channels, filters)
    tensors = (weight.flatten(2), add, taps, out)
    values, added, scratch, results = (_array(tensor) for tensor in tensors)
    convolve_batch(_array(x), values, transposed, added, scratch, results, _scratch())
    return out


@_winograd_conv2d.register_fake
def _new_maps(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1 if transposed else 0], *x.shape[2:]))


@torch.library.custom_op(
    "bidiffsr_arch::winograd_weight_gradient",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor grad, Tensor x) -> Tensor",
)
def _winograd_weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    from bidiffsr_arch.packed.kernels.batch_winograd import FILTERS, SLICE, chunks_of, weight_gradient_batch

    filters, channels = grad.shape[1], x.shape[1]
    units = -(-filters // FILTERS) * (channels // SLICE)
    parts = min(chunks_of(x.shape[0], x.shape[2], x.shape[3]).number, -(-UNITS // units))
    out = x.new_empty(filters, channels, 3, 3)
    sums = x.new_empty(parts, *out.shape) if parts > 1 else out[None]
    weight_gradient_batch(_array(x), _array(grad), parts, _array(sums.flatten(3)), _scratch())
    return torch.sum(sums, 0, out=out) if parts > 1 else out


@_winograd_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(grad.shape[1], x.shape[1], 3, 3)


def supports(x: Tensor, weight: Tensor) -> bool:
    """Whether to compute a convolution by Winograd: on a CPU, in float32, 3x3, with multiples of `CHANNELS` channels,
    and large enough."""
    filters, channels, *kernel = weight.shape
    pixels = x.shape[0] * x.shape[2:].numel()
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and kernel == [3, 3]
        and filters % CHANNELS == channels % CHANNELS == 0
        and min(x.shape[2:]) >= MIN_SIZE
        and pixels >= MIN_PIXELS
        and pixels * weight.numel() >= MIN_MACS
    )


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d(x, weight) + bias``, 3x3, stride 1, zero padding.

    Args:
        x: float32 (B, C_in, H, W).
        weight: float32 (C_out, C_in, 3, 3); both numbers of channels are multiples of `CHANNELS`.
        bias: float32 (C_out,).
    Returns:
        float32 (B, C_out, H, W).
    """
    return torch.ops.bidiffsr_arch.winograd_conv2d(x, weight, bias, False)


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `conv2d` with respect to x, (B, C_in, H, W), from that of its result, (B, C_out, H, W): the
    convolution with the transposed weights."""
    return torch.ops.bidiffsr_arch.winograd_conv2d(grad, weight, None, True)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `conv2d` with respect to its weight, (C_out, C_in, 3, 3), from that of its result."""
    return torch.ops.bidiffsr_arch.winograd_weight_gradient(grad, x)


WINOGRAD = ConvBackend(supports, conv2d, input_gradient, weight_gradient)


def _scratch() -> np.ndarray:
    """Scratch memory of each of Numba's threads, as many as torch's."""
    from bidiffsr_arch.packed.kernels.batch_winograd import scratch_from
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch

    return aligned((as_many_threads_as_torch(), scratch_from(0).end), np.uint8, None)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()

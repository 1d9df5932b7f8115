"""GroupNorm: the sums of a map, and the normalization with or without Swish."""

import numpy as np

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.signs import norm_swish_vector, norm_vector
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, address


@helper
def _normalise_rows(part, first, last, x, gain, bias, with_swish, out) -> None:
    _, width, channels = x.shape
    pixel = channels * 4
    row = width * pixel
    g, o = address(gain), address(bias)
    for start in range(first * row, last * row, pixel):
        source, result = address(x) + start, address(out) + start
        for d in range(0, pixel, BYTES):
            if with_swish:
                norm_swish_vector(source + d, g + d, o + d, result + d)
            else:
                norm_vector(source + d, g + d, o + d, result + d)


@kernel
def normalise(x, gain, bias, with_swish, out) -> None:
    """``out = gain * x + bias`` per channel, followed by Swish if `with_swish`."""
    split(len(x), _normalise_rows, (x, gain, bias, with_swish, out))


@helper
def _sum_rows(part, first, last, x, sums) -> None:
    _, width, channels = x.shape
    for y in range(first, last):
        sums[y] = 0
        for i in range(width):
            for c in range(channels):
                value = x[y, i, c]
                sums[y, 0, c] += value
                sums[y, 1, c] += value * value


@kernel
def channel_sums(x, sums) -> None:
    """sums[y] = for each channel the sums of values and of squares of row y: float32 (H, 2, C)."""
    split(len(x), _sum_rows, (x, sums))


@kernel
def group_norm(sums, totals, pixels, groups, eps, weight, bias, gain, shift) -> None:
    """GroupNorm as ``gain * x + shift`` per channel, from sums (parts, 2, padded C) that are added up in float64.

    totals: scratch, float64 (2, padded C), zeros. weight, bias: float32 (C,). gain, shift: float32 (padded C,),
    written; their padding is left as it is.
    """
    each = weight.size // groups
    for part in range(sums.shape[0]):
        for i in range(2):
            for c in range(weight.size):
                totals[i, c] += sums[part, i, c]
    for g in range(groups):
        first, last = g * each, (g + 1) * each
        total, square = 0.0, 0.0
        for c in range(first, last):
            total += totals[0, c]
            square += totals[1, c]
        mean = total / (pixels * each)
        variance = square / (pixels * each) - mean * mean
        scale = 1.0 / np.sqrt(max(variance, 0.0) + eps)
        for c in range(first, last):
            gain[c] = weight[c] * scale
            shift[c] = bias[c] - mean * weight[c] * scale

"""Passes over maps that belong to GroupNorm."""

import numpy as np
from numba import prange

from bidiffsr_arch.packed.kernels.compile import kernel
from bidiffsr_arch.packed.kernels.signs import norm_swish_vector, norm_vector
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, address


@kernel
def normalise(x, gain, bias, with_swish, out) -> None:
    """out = gain * x + bias per channel, through Swish if asked."""
    height, width, channels = x.shape
    pixel = channels * 4
    for y in prange(height):
        source = address(x) + y * width * pixel
        result = address(out) + y * width * pixel
        g, o = address(gain), address(bias)
        for i in range(0, width * pixel, pixel):
            for d in range(0, pixel, BYTES):
                if with_swish:
                    norm_swish_vector(source + i + d, g + d, o + d, result + i + d)
                else:
                    norm_vector(source + i + d, g + d, o + d, result + i + d)


@kernel
def channel_sums(x, sums) -> None:
    """sums[y] = for each channel the sums of values and of squares of row y: float32 (H, 2, C)."""
    height, width, channels = x.shape
    for y in prange(height):
        sums[y] = 0
        for i in range(width):
            for c in range(channels):
                value = x[y, i, c]
                sums[y, 0, c] += value
                sums[y, 1, c] += value * value


@kernel(parallel=False)
def group_norm(sums, pixels, groups, eps, weight, bias, gain, shift) -> None:
    """GroupNorm as ``gain * x + shift`` per channel, from sums (parts, 2, padded C) that are added up in float64.

    weight, bias: float32 (C,). gain, shift: float32 (padded C,), written; their padding is left as it is.
    """
    parts = sums.shape[0]
    each = weight.size // groups
    totals = np.zeros((2, weight.size))
    for part in range(parts):
        for i in range(2):
            for c in range(weight.size):
                totals[i, c] += sums[part, i, c]
    for g in range(groups):
        first, last = g * each, (g + 1) * each
        mean = totals[0, first:last].sum() / (pixels * each)
        variance = totals[1, first:last].sum() / (pixels * each) - mean * mean
        scale = 1.0 / np.sqrt(max(variance, 0.0) + eps)
        for c in range(first, last):
            gain[c] = weight[c] * scale
            shift[c] = bias[c] - mean * weight[c] * scale

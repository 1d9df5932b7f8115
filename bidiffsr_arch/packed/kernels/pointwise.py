"""Full-precision 1x1 convolution of one map, or of two maps that are never joined in memory, and small passes over
maps.
"""

import numpy as np
from numba import prange

from bidiffsr_arch.packed.kernels.ahead import LINE, Ahead, fetch_ahead
from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.gemm import GROUP, MANY, finish_run, gemm
from bidiffsr_arch.packed.kernels.vector_ir import clear
from bidiffsr_arch.packed.layout import BLOCK, aligned_copy, padded

PIXELS = 32 // MANY * MANY
"""Pixels whose products are formed before their epilogue runs."""


def pointwise_weights(weight: np.ndarray) -> np.ndarray:
    """(C_out, C_in) -> float32 (C_out / BLOCK, C_in, BLOCK), channels padded."""
    full = np.zeros((padded(weight.shape[1]), padded(weight.shape[0])), np.float32)
    full[: weight.shape[1], : weight.shape[0]] = weight.T
    return aligned_copy(full.reshape(len(full), -1, BLOCK).transpose(1, 0, 2))


@helper
def _products(x1, weights1, x2, weights2, block, some, y, start, pixels, acc):
    """acc (pixels, filters): of `some` blocks from `block` on, ``x1 W1 + x2 W2`` of pixels (y, start) and following."""
    width, channels = x1.shape[1], x1.shape[2]
    blocks, matrix = weights1.shape[0], channels * 4 * BLOCK
    first, second = np.int64(weights1.ctypes.data), np.int64(weights2.ctypes.data)
    gemm(
        np.int64(x1.ctypes.data) + (y * width + start) * channels * 4,
        channels * 4,
        pixels,
        first + block * matrix,
        channels,
        some,
        acc + block * 4 * BLOCK,
        blocks * 4 * BLOCK,
        2 if x2.size > 0 else 1,
        np.int64(x2.ctypes.data) - np.int64(x1.ctypes.data),
        second - first,
    )


@helper
def _ahead(x1, x2, target, y, x, line):
    """What to ask for: the maps at pixel (y, x) and `line` bytes on."""
    width, two = x1.shape[1], x2.size > 0
    return Ahead(
        np.int64(x1.ctypes.data) + (y * width + x) * x1.shape[2] * 4 + line,
        np.int64(x2.ctypes.data) + two * ((y * width + x) * x2.shape[2] * 4 + line),
        two * LINE,
        np.int64(target.map.ctypes.data) + y * target.row + x * target.pixel + line,
    )


def chunk_bytes(filters: int) -> int:
    """Bytes of a thread's scratch."""
    return PIXELS * filters * 4


@helper
def _pointwise_row(x1, weights1, x2, weights2, add, s, target, acc, y):
    """Row y of `pointwise`; acc: address of PIXELS rows of accumulators."""
    width, blocks = x1.shape[1], weights1.shape[0]
    sums_row = 2 * target.sums.shape[2] * 4
    sums = np.int64(target.sums.ctypes.data) + y * sums_row
    clear(sums, sums_row)
    for x in range(0, width, PIXELS):
        pixels = min(PIXELS, width - x)
        for block in range(0, blocks, GROUP):
            some = min(GROUP, blocks - block)
            for part in range(0, pixels, MANY):
                now, to = min(MANY, pixels - part), acc + part * blocks * 4 * BLOCK
                fetch_ahead(_ahead(x1, x2, target, y, x + PIXELS, block * PIXELS * LINE), part * some, now * some)
                _products(x1, weights1, x2, weights2, block, some, y, x + part, now, to)
        for block in range(blocks):
            c = sums + target.channels[block] * 4
            finish_run(
                pixels,
                acc + block * 4 * BLOCK,
                blocks * 4 * BLOCK,
                np.int64(add.ctypes.data) + block * 4 * BLOCK,
                np.int64(s.map.ctypes.data) + s.first + y * s.row + x * s.pixel + block * s.block,
                s.pixel,
                np.int64(target.map.ctypes.data) + y * target.row + x * target.pixel + target.blocks[block],
                target.pixel,
                c,
                c + target.sums.shape[2] * 4,
            )


@kernel
def pointwise(x1, weights1, x2, weights2, add, s, target, scratch):
    """``x1 W1 + x2 W2 + add + s``. The target may be x1: a run of pixels is read before it is written.

    x2: of the shape of x1, or without pixels, for one map only. target: with one row of sums for
        each row of the map. scratch: uint8 (threads, `chunk_bytes`).
    """
    height = len(x1)
    chunks = min(scratch.shape[0], height)
    for chunk in prange(chunks):
        acc = np.int64(scratch.ctypes.data) + chunk * scratch.shape[1]
        for y in range(chunk * height // chunks, (chunk + 1) * height // chunks):
            _pointwise_row(x1, weights1, x2, weights2, add, s, target, acc, y)

"""Full-precision 1x1 convolution of one map, or of two maps whose concatenation is never stored."""

import numpy as np

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.gemm import CHUNK, GROUP, MANY, PrefetchStreams, Terms, finish_run, gemm
from bidiffsr_arch.packed.kernels.places import Strided, Sums
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import address, clear
from bidiffsr_arch.packed.layout import BLOCK, aligned_copy, padded

BLOCK_BYTES = 4 * BLOCK

PIXELS = 32 // MANY * MANY
"""Pixels whose products are computed before their epilogue runs."""


def pointwise_weights(weight: np.ndarray) -> np.ndarray:
    """(C_out, C_in) -> float32 (C_out / BLOCK, C_in, BLOCK), channels padded."""
    full = np.zeros((padded(weight.shape[1]), padded(weight.shape[0])), np.float32)
    full[: weight.shape[1], : weight.shape[0]] = weight.T
    return aligned_copy(full.reshape(len(full), -1, BLOCK).transpose(1, 0, 2))


@helper
def _prefetch(x1, x2, target, y, x, chunks, share, shares) -> PrefetchStreams:
    """What to prefetch during one of the `shares` parts of a run's products: a part of the pixels from (y, x) on."""
    width, pixel, two = x1.shape[1], x1.shape[2] * 4, x2.size > 0
    first, each = (y * width + x) * shares + PIXELS * share, PIXELS
    steps = chunks * shares
    return PrefetchStreams(
        address(x1) + first * pixel // shares,
        -(-each * pixel // steps),
        address(x2) + two * (first * pixel // shares),
        two * -(-each * pixel // steps),
        address(target.map) + first * target.pixel // shares,
        -(-each * target.pixel // steps),
    )


def chunk_bytes(filters: int) -> int:
    """Bytes of a thread's scratch."""
    return PIXELS * filters * 4


@helper
def _pointwise_row(x1, weights1, x2, weights2, add, shortcut, target, acc, y) -> None:
    """Row y of `pointwise`; acc: address of PIXELS rows of accumulators."""
    width, channels, blocks = x1.shape[1], x1.shape[2], weights1.shape[0]
    w, matrix = address(weights1), channels * BLOCK_BYTES
    terms = Terms(2 if x2.size > 0 else 1, address(x2) - address(x1), address(weights2) - w)
    sums_row = 2 * target.sums.shape[2] * 4
    sums = address(target.sums) + y * sums_row
    out = address(target.map) + y * target.row
    s = address(shortcut.map) + shortcut.first + y * shortcut.row
    step = blocks * BLOCK_BYTES
    shares, chunks = (blocks + GROUP - 1) // GROUP, PIXELS // MANY * terms.number * channels // CHUNK
    clear(sums, sums_row)
    for x in range(0, width, PIXELS):
        pixels = min(PIXELS, width - x)
        for block in range(0, blocks, GROUP):
            some = min(GROUP, blocks - block)
            gemm(
                Strided(address(x1) + (y * width + x) * channels * 4, channels * 4),
                pixels,
                Strided(w + block * matrix, matrix),
                channels,
                some,
                Strided(acc + block * BLOCK_BYTES, step),
                terms,
                _prefetch(x1, x2, target, y, x + PIXELS, chunks, block // GROUP, shares),
            )
        for block in range(0, blocks, GROUP):
            c = sums + target.channels[block] * 4
            finish_run(
                pixels,
                min(GROUP, blocks - block),
                Strided(acc + block * BLOCK_BYTES, step),
                address(add) + block * BLOCK_BYTES,
                Strided(s + x * shortcut.pixel + block * shortcut.block, shortcut.pixel),
                shortcut.block,
                Strided(out + x * target.pixel + target.blocks[block], target.pixel),
                Sums(c, c + target.sums.shape[2] * 4),
            )


@helper
def _pointwise_rows(part, first, last, x1, weights1, x2, weights2, add, shortcut, target, scratch) -> None:
    """Rows first to last - 1."""
    for y in range(first, last):
        _pointwise_row(x1, weights1, x2, weights2, add, shortcut, target, address(scratch) + part * scratch.shape[1], y)


@kernel
def pointwise(x1, weights1, x2, weights2, add, shortcut, target, scratch) -> None:
    """``x1 W1 + x2 W2 + add + shortcut``. The target may be x1: a run of pixels is read before it is written.

    x2: of the shape of x1, or empty for one map only. shortcut: `binary_conv.Shortcut`. target: `binary_conv.Target`,
    with one row of sums for each row of the image. scratch: uint8 (threads, `chunk_bytes`).
    """
    arguments = x1, weights1, x2, weights2, add, shortcut, target, scratch
    split(len(x1), _pointwise_rows, arguments)

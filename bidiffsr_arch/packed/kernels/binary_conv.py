"""The 1-bit convolution as one kernel: [GroupNorm, Swish,] shift, sign, count, affine, PReLU, shortcuts, sums.

Each thread walks down its share of the picture two rows at a time and keeps the bits (and the Swish values, for the
shortcut) of four rows: neither ever becomes a map in memory.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from bidiffsr_arch.packed.kernels.ahead import LINE, Ahead
from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.epilogue import epilogue
from bidiffsr_arch.packed.kernels.lookup import lookup_pair, pair_rows
from bidiffsr_arch.packed.kernels.popcount import popcount_pair
from bidiffsr_arch.packed.kernels.signs import sign_row
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, clear
from bidiffsr_arch.packed.layout import BLOCK, COUNT_BYTES, ROWS, SEGMENT, TABLE_FILTERS

BLOCK_BYTES = 4 * BLOCK


class Source(NamedTuple):
    """What bits are made from: ``channels`` of `map` from byte `first` of each pixel on.

    If `normalise`, ``swish(gain * map + bias)`` takes its place. A bit is set where that plus `shift` is not negative;
    vectors are padded with 0, 0 and -inf.
    """

    map: np.ndarray
    first: int
    vectors: int
    normalise: bool
    gain: np.ndarray
    bias: np.ndarray
    shift: np.ndarray


class Weights(NamedTuple):
    """1-bit weights, and the integers that go with them (`layout.border_totals`).

    radius: of the taps, 0 or 1. in_words: `bits` are words, to be counted by `popcount`; else nibbles, by `lookup` with
    `table`.
    """

    radius: int
    in_words: bool
    table: np.ndarray
    bits: np.ndarray
    totals: np.ndarray


class Shortcut(NamedTuple):
    """A map to add: `first`, `row`, `pixel`, `block` are distances in bytes; all 0 for a map of one block of zeros."""

    map: np.ndarray
    first: int
    row: int
    pixel: int
    block: int


class Target(NamedTuple):
    """Where results go: block i of the channels starts at byte ``blocks[i]``, and its sums at channel ``channels[i]``
    of `sums`.

    PixelShuffle is a matter of these distances. sums: float32 (H, 2, C), for each row of the convolution the sums of
    values and of squares.
    """

    map: np.ndarray
    row: int
    pixel: int
    blocks: np.ndarray
    channels: np.ndarray
    sums: np.ndarray


def bits_of_pixel(channels: int) -> int:
    """Bytes of a pixel's bits: whole words."""
    return (channels // 8 + 7) // 8 * 8


def chunk_bytes(width: int, channels: int, normalise: bool) -> tuple[int, int, int, int]:
    """Bytes of a thread's scratch: ends of its bits, its values, its counters, its prepared rows."""
    pixel = (channels // 8 + 7) // 8 * 8
    bits = (ROWS * (width + 2) * pixel + 63) // 64 * 64
    values = bits + (ROWS * width * channels * 4 if normalise else 0)
    counts = values + 2 * SEGMENT * TABLE_FILTERS * COUNT_BYTES
    prepared = counts + 3 * ((width + 2) * channels // 2 + 64)
    return bits, values, counts, (prepared + 63) // 64 * 64


_bits_of_pixel, _chunk_bytes = helper(bits_of_pixel), helper(chunk_bytes)


@helper
def _finish(counts, counts_pixel, x, pixels, y, block, weights, parameters, gain, gain_step, v1, p1, s2, target, size):
    """Epilogue of a run of pixels of row y, split where the border changes the total. v1, p1: first shortcut."""
    height, width = size
    total_row = weights.totals.shape[1] * 4
    edge = (1 if y == 0 else 0) + (2 if y == height - 1 else 0)
    out = np.int64(target.map.ctypes.data) + y * target.row + target.blocks[block]
    sums = np.int64(target.sums.ctypes.data) + (y * 2 * target.sums.shape[2] + target.channels[block]) * 4
    start = x
    while start < x + pixels:
        place, stop = edge, x + pixels
        if start == 0:
            place, stop = place + 4, 1
        if start == width - 1:
            place += 8
        elif stop == width:
            stop = width - 1
        epilogue(
            stop - start,
            counts + (start - x) * counts_pixel,
            counts_pixel,
            np.int64(weights.totals.ctypes.data) + place * total_row + block * BLOCK_BYTES,
            np.int64(parameters.ctypes.data) + block * BLOCK_BYTES,
            parameters.shape[1] * 4,
            np.int64(gain.ctypes.data) + (y * width + start) * gain_step,
            gain_step,
            v1 + start * p1,
            p1,
            np.int64(s2.map.ctypes.data) + s2.first + y * s2.row + start * s2.pixel + block * s2.block,
            s2.pixel,
            out + start * target.pixel,
            target.pixel,
            sums,
            sums + target.sums.shape[2] * 4,
        )
        start = stop


@helper
def _pack_rows(source, first, last, bits, row_bits, values, row_values, size):
    """Bits and values of rows first..last - 1, each in its slot of `ROWS`; rows outside the picture have bits 0."""
    height, width = size
    channels = source.map.shape[2]
    pixel = _bits_of_pixel(source.vectors * BYTES // 4)
    for r in range(first, last):
        slot = (r + ROWS) % ROWS
        if r < 0 or r >= height:
            clear(bits + slot * row_bits, row_bits)
            continue
        sign_row(
            np.int64(source.map.ctypes.data) + source.first + r * width * channels * 4,
            channels * 4,
            source.vectors,
            np.int64(source.gain.ctypes.data),
            np.int64(source.bias.ctypes.data),
            source.normalise,
            np.int64(source.shift.ctypes.data),
            values + slot * row_values,
            bits + slot * row_bits + pixel,
            pixel,
            width,
        )


@helper
def _ahead(source, s, target, y, x, pixels, block, radius, size):
    """What to ask for while a block of channels of a segment of row y is counted: its part of the next segment's
    shortcut and results, and of the row that bits are made from next.
    """
    height, width = size
    line = block * pixels * LINE
    coming = min(y + 2 + radius, height - 1)
    next_x, next_y = x + SEGMENT, y
    if next_x >= width:
        next_x, next_y = 0, min(y + 2, height - 1)
    has_shortcut = s.pixel > 0
    return Ahead(
        np.int64(source.map.ctypes.data) + (coming * width + x) * source.map.shape[2] * 4 + line,
        np.int64(s.map.ctypes.data) + next_y * s.row + next_x * s.pixel + has_shortcut * line,
        has_shortcut * LINE,
        np.int64(target.map.ctypes.data) + next_y * target.row + next_x * target.pixel + line,
    )


@kernel
def binary_conv(source, keep, weights, parameters, gain, gain_step, s1, s2, target, scratch):
    """One convolution of a map (H, W, C).

    keep: the shortcut is the normalised source itself, in place of s1. parameters: float32 (4, C_out), see `epilogue`.
    gain: xnor's map (H * W,), or a single 1 with a step of 0. scratch: uint8 (threads, bytes).
    """
    size = source.map.shape[0], source.map.shape[1]
    height, width = size
    channels = source.vectors * BYTES // 4
    groups = channels // 4
    blocks, radius = target.blocks.size, weights.radius
    pixel = _bits_of_pixel(channels)
    bits_end, values_end, counts_end, _ = _chunk_bytes(width, channels, source.normalise)
    row_bits, row_values, sums_row = (width + 2) * pixel, width * channels * 4, 2 * target.sums.shape[2] * 4
    group = 1 if weights.in_words else TABLE_FILTERS // BLOCK
    group_bytes = weights.bits.size * weights.bits.itemsize // weights.bits.shape[0]
    counts_pixel = group * BLOCK * COUNT_BYTES
    pairs = (height + 1) // 2
    chunks = min(scratch.shape[0], pairs)
    for chunk in prange(chunks):
        bits = np.int64(scratch.ctypes.data) + chunk * scratch.shape[1]
        values, counts, prepared = bits + bits_end, bits + values_end, bits + counts_end
        clear(bits, bits_end)
        first, last = 2 * (chunk * pairs // chunks), min(2 * ((chunk + 1) * pairs // chunks), height)
        done = first - radius
        for y in range(first, last, 2):
            _pack_rows(source, done, y + 2 + radius, bits, row_bits, values, row_values, size)
            done = y + 2 + radius
            slot = (y - radius + ROWS) % ROWS
            here = min(2, height - y)
            clear(np.int64(target.sums.ctypes.data) + y * sums_row, here * sums_row)
            if not weights.in_words:
                pair_rows(bits, row_bits, slot, prepared, y, height, width, radius, pixel, groups)
            for x in range(0, width, SEGMENT):
                pixels = min(SEGMENT, width - x)
                for block in range(blocks):
                    filters = np.int64(weights.bits.ctypes.data) + block // group * group_bytes
                    upper = _ahead(source, s2, target, y, x, pixels, block, radius, size)
                    lower = _ahead(source, s2, target, min(y + 1, height - 1), x, pixels, block, radius, size)
                    if weights.in_words:
                        popcount_pair(bits, row_bits, slot, radius, pixel, filters, counts, x, pixels, upper, lower)
                    elif block % group == 0:
                        table = np.int64(weights.table.ctypes.data)
                        lines = min(group, blocks - block)
                        lookup_pair(
                            table, prepared, radius, groups, filters, counts, x, pixels, width, upper, lower, lines
                        )
                    for r in range(here):
                        if keep:
                            v1, p1 = values + (y + r) % ROWS * row_values + block * BLOCK_BYTES, channels * 4
                        else:
                            v1 = np.int64(s1.map.ctypes.data) + s1.first + (y + r) * s1.row + block * s1.block
                            p1 = s1.pixel
                        _finish(
                            counts + r * SEGMENT * counts_pixel + block % group * BLOCK * COUNT_BYTES,
                            counts_pixel,
                            x,
                            pixels,
                            y + r,
                            block,
                            weights,
                            parameters,
                            gain,
                            gain_step,
                            v1,
                            p1,
                            s2,
                            target,
                            size,
                        )

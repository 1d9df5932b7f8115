"""The 1-bit convolution as one kernel: [GroupNorm, Swish,] shift, sign, count, affine, PReLU, shortcuts, GroupNorm's
sums.

Each thread walks down its share of the picture two rows at a time and keeps the bits (and the Swish values, for the
shortcut) of four rows: neither ever becomes a map in memory. How bits are counted is one of two functions; all else is
the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.signs import sign_row
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, clear
from bidiffsr_arch.packed.layout import BLOCK

ROWS = 4
"""Rows of bits at hand: two output rows need one above and one below."""

SEGMENT = 64
"""Pixels of a row that are counted before their epilogue runs: their counters stay in the first cache."""

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
    """1-bit weights in the layout of the counting function, and the integers that go with them
    (`layout.border_totals`).
    """

    radius: int
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


def chunk_bytes(width: int, pixel_bytes: int, value_bytes: int, group: int) -> tuple[int, int, int, int]:
    """Bytes of a thread's scratch: ends of its bits, its values, its counters, its prepared rows."""
    bits = (ROWS * (width + 2) * pixel_bytes + 63) // 64 * 64
    values = bits + ROWS * width * value_bytes
    counts = values + 2 * SEGMENT * group * BLOCK_BYTES
    prepared = counts + 3 * ((width + 2) * pixel_bytes * 4 + 64)
    return bits, values, counts, (prepared + 63) // 64 * 64


_chunk_bytes = helper(chunk_bytes)


def make_binary_conv(
    prepare: Callable, count_pair: Callable, epilogue: Callable, group: int, count_bytes: int
) -> Callable:
    """The convolution with one way of counting.

    Args:
        prepare: brings the rows of bits of a pair of output rows into the form that `count_pair` reads.
        count_pair: counts a segment of two output rows and `group` blocks, to (2, SEGMENT, group * BLOCK) integers of
            `count_bytes`.
    """
    counts_pixel = group * BLOCK * count_bytes
    counts_row = SEGMENT * counts_pixel

    @helper
    def finish(counts, x, pixels, y, block, weights, height, width, parameters, gain, gain_step, v1, p1, s2, target):
        """Epilogue of a run of pixels of row y, split where the border changes the total."""
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
            second = np.int64(s2.map.ctypes.data) + s2.first + y * s2.row + start * s2.pixel + block * s2.block
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
                second,
                s2.pixel,
                out + start * target.pixel,
                target.pixel,
                sums,
                sums + target.sums.shape[2] * 4,
            )
            start = stop

    @kernel
    def binary_conv(source, keep, weights, parameters, gain, gain_step, s1, s2, target, scratch):
        """One convolution of a map (H, W, C).

        keep: the shortcut is the normalised source itself, in place of s1. parameters: float32 (4, C_out), see
            `epilogue`. gain: xnor's map (H, W), or a single 1 with a step of 0. scratch: uint8 (threads, bytes).
        """
        height, width, channels = source.map.shape
        blocks, radius = target.blocks.size, weights.radius
        pixel_bytes = (source.vectors * BYTES // 32 + 7) // 8 * 8
        value_pixel = source.vectors * BYTES
        bits_end, values_end, counts_end, _ = _chunk_bytes(
            width, pixel_bytes, value_pixel if source.normalise else 0, group
        )
        row_bits, row_values = (width + 2) * pixel_bytes, width * value_pixel
        sums_row = 2 * target.sums.shape[2] * 4
        pairs = (height + 1) // 2
        chunks = min(scratch.shape[0], pairs)
        group_bytes = weights.bits[0].size * weights.bits.itemsize
        for chunk in prange(chunks):
            bits = np.int64(scratch.ctypes.data) + chunk * scratch.shape[1]
            values, counts, prepared = bits + bits_end, bits + values_end, bits + counts_end
            clear(bits, bits_end)
            first, last = 2 * (chunk * pairs // chunks), min(2 * ((chunk + 1) * pairs // chunks), height)
            done = first - radius
            for y in range(first, last, 2):
                for r in range(done, y + 2 + radius):
                    slot = (r + ROWS) % ROWS
                    if r < 0 or r >= height:
                        clear(bits + slot * row_bits, row_bits)
                    else:
                        sign_row(
                            np.int64(source.map.ctypes.data) + source.first + r * width * channels * 4,
                            channels * 4,
                            source.vectors,
                            np.int64(source.gain.ctypes.data),
                            np.int64(source.bias.ctypes.data),
                            source.normalise,
                            np.int64(source.shift.ctypes.data),
                            values + slot * row_values,
                            bits + slot * row_bits + pixel_bytes,
                            pixel_bytes,
                            width,
                        )
                done = y + 2 + radius
                slots = (y - radius + ROWS) % ROWS
                prepare(bits, row_bits, slots, prepared, y, height, width, radius, pixel_bytes)
                for x in range(0, width, SEGMENT):
                    pixels = min(SEGMENT, width - x)
                    for g in range((blocks + group - 1) // group):
                        filters = np.int64(weights.bits.ctypes.data) + g * group_bytes
                        count_pair(
                            np.int64(weights.table.ctypes.data),
                            bits,
                            row_bits,
                            slots,
                            prepared,
                            radius,
                            pixel_bytes,
                            filters,
                            counts,
                            x,
                            pixels,
                            width,
                        )
                        for j in range(min(group, blocks - g * group)):
                            block = g * group + j
                            for r in range(min(2, height - y)):
                                if keep:
                                    v1 = values + (y + r) % ROWS * row_values + block * BLOCK_BYTES
                                    p1 = value_pixel
                                else:
                                    v1 = np.int64(s1.map.ctypes.data) + s1.first + (y + r) * s1.row + block * s1.block
                                    p1 = s1.pixel
                                counted = counts + r * counts_row + j * BLOCK * count_bytes
                                if g == 0 and j == 0 and x == 0:
                                    clear(np.int64(target.sums.ctypes.data) + (y + r) * sums_row, sums_row)
                                finish(
                                    counted,
                                    x,
                                    pixels,
                                    y + r,
                                    block,
                                    weights,
                                    height,
                                    width,
                                    parameters,
                                    gain,
                                    gain_step,
                                    v1,
                                    p1,
                                    s2,
                                    target,
                                )

    return binary_conv

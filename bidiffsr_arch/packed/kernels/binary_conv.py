"""The 1-bit convolution as one kernel: [GroupNorm, Swish,] shift, sign, count, affine, PReLU, shortcuts, sums.

Each thread processes its part of the image two rows at a time. It stores the bits (and, for the shortcut, the Swish
values) of four rows, never those of the whole map.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bidiffsr_arch.packed.kernels.bit_rows import BitRows, Segment, Taps
from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.epilogue import Constants, epilogue
from bidiffsr_arch.packed.kernels.lookup import lookup_pair, pair_rows
from bidiffsr_arch.packed.kernels.places import Strided, Sums
from bidiffsr_arch.packed.kernels.popcount import popcount_pair
from bidiffsr_arch.packed.kernels.prefetch import LINE, Prefetch
from bidiffsr_arch.packed.kernels.signs import Channels, sign_row
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, address, clear
from bidiffsr_arch.packed.layout import BLOCK, COUNT_BYTES, ROWS, SEGMENT, TABLE_FILTERS

BLOCK_BYTES = 4 * BLOCK


class Source(NamedTuple):
    """The convolution's input: `vectors` vectors of channels of `map`, from byte `first` of each pixel on.

    With `normalise` it is ``swish(gain * map + bias)`` instead. A bit is set where the input plus `shift` is not
    negative. gain, bias and shift are padded with 0, 0 and -inf.
    """

    map: np.ndarray
    first: int
    vectors: int
    normalise: bool
    gain: np.ndarray
    bias: np.ndarray
    shift: np.ndarray


class PackedWeight(NamedTuple):
    """1-bit weights and their totals (`layout.border_totals`).

    radius: of the taps, 0 or 1. bits: words for `popcount_conv`; nibbles for `lookup_conv`, which alone uses `table`.
    """

    radius: int
    table: np.ndarray
    bits: np.ndarray
    totals: np.ndarray


class Scale(NamedTuple):
    """Scale, offset, slope and bias of the channels, float32 (4, C_out), see `epilogue`; and XNOR-Net's map of gains
    (H * W,), `step` bytes per pixel. Other methods have a single gain of 1 and a step of 0.
    """

    parameters: np.ndarray
    gain: np.ndarray
    step: int


class Shortcut(NamedTuple):
    """A map to add. In bytes: the offset of its first channel, and the strides of rows, pixels and blocks of channels.
    All are 0 where nothing is added; the map is then one block of zeros.
    """

    map: np.ndarray
    first: int
    row: int
    pixel: int
    block: int


class Target(NamedTuple):
    """Where results are written: block i of the channels starts at byte ``blocks[i]``, and its sums at channel
    ``channels[i]`` of `sums`.

    sums: float32 (H, 2, C), for each row of the convolution the sums of values and of squares.
    """

    map: np.ndarray
    row: int
    pixel: int
    blocks: np.ndarray
    channels: np.ndarray
    sums: np.ndarray


class Scratch(NamedTuple):
    """A thread's scratch memory: addresses of the bits and the values of `ROWS` rows, of the counters of a segment, and
    of the prepared rows of `lookup`; `end` is the first byte after it.
    """

    bits: int
    values: int
    counts: int
    prepared: int
    end: int


def scratch_from(start: int, width: int, channels: int, normalise: bool) -> Scratch:
    """A thread's scratch memory, which begins at address `start`, a multiple of 64."""
    pixel = (channels // 8 + 7) // 8 * 8
    values = start + (ROWS * (width + 2) * pixel + 63) // 64 * 64
    counts = values + (ROWS * width * channels * 4 if normalise else 0)
    prepared = counts + 2 * SEGMENT * TABLE_FILTERS * COUNT_BYTES
    end = prepared + 3 * ((width + 2) * channels // 2 + 64)
    return Scratch(start, values, counts, prepared, (end + 63) // 64 * 64)


_scratch_from = helper(scratch_from)


@helper
def _epilogues(counts, segment, y, block, weights, scale, shortcut, other, target, size) -> None:
    """Epilogues of a segment of row y, split where the border changes the total.

    counts, shortcut: `Strided`, from the segment's and from the row's first pixel on. other: `Shortcut`.
    """
    height, width = size
    edge = (1 if y == 0 else 0) + (2 if y == height - 1 else 0)
    out = address(target.map) + y * target.row + target.blocks[block]
    sums = address(target.sums) + (y * 2 * target.sums.shape[2] + target.channels[block]) * 4
    totals = address(weights.totals) + block * BLOCK_BYTES
    parameters = address(scale.parameters) + block * BLOCK_BYTES
    gain = address(scale.gain) + y * width * scale.step
    second = address(other.map) + other.first + y * other.row + block * other.block
    start, end = segment.x, segment.x + segment.pixels
    while start < end:
        place, stop = edge, end
        if start == 0:
            place, stop = place + 4, 1
        if start == width - 1:
            place += 8
        elif stop == width:
            stop = width - 1
        epilogue(
            stop - start,
            Strided(counts.start + (start - segment.x) * counts.step, counts.step),
            Constants(totals + place * weights.totals.shape[1] * 4, parameters, scale.parameters.shape[1] * 4),
            Strided(gain + start * scale.step, scale.step),
            Strided(shortcut.start + start * shortcut.step, shortcut.step),
            Strided(second + start * other.pixel, other.pixel),
            Strided(out + start * target.pixel, target.pixel),
            Sums(sums, sums + target.sums.shape[2] * 4),
        )
        start = stop


@helper
def _pack_rows(source, first, last, bits, pixel, values, size) -> None:
    """Pack the signs of rows first to last - 1, and store their values, each row in its slot of `ROWS`; rows outside of
    the image have bits 0.

    bits, values: `Strided`, slot by slot. pixel: bytes of a pixel's bits.
    """
    height, width = size
    step = source.map.shape[2] * 4
    start = address(source.map) + source.first
    channels = Channels(source.vectors, address(source.gain), address(source.bias), address(source.shift))
    for r in range(first, last):
        slot = (r + ROWS) % ROWS
        row = bits.start + slot * bits.step
        if r < 0 or r >= height:
            clear(row, bits.step)
        else:
            pixels = Strided(start + r * width * step, step)
            sign_row(
                pixels,
                channels,
                source.normalise,
                values.start + slot * values.step,
                Strided(row + pixel, pixel),
                width,
            )


@helper
def _prefetch(source, s, target, y, segment, block, radius, size) -> Prefetch:
    """What to prefetch while a block of channels of a segment of row y is counted: this block's part of the next
    segment's shortcut and results, and of the row whose signs are packed next.
    """
    height, width = size
    line = block * segment.pixels * LINE
    coming = min(y + 2 + radius, height - 1)
    next_x, next_y = segment.x + SEGMENT, y
    if next_x >= width:
        next_x, next_y = 0, min(y + 2, height - 1)
    has_shortcut = s.pixel > 0
    return Prefetch(
        address(source.map) + (coming * width + segment.x) * source.map.shape[2] * 4 + line,
        address(s.map) + next_y * s.row + next_x * s.pixel + has_shortcut * line,
        has_shortcut * LINE,
        address(target.map) + next_y * target.row + next_x * target.pixel + line,
    )


def convolution(in_words: bool) -> Callable:
    """The function that computes a thread's pairs of rows; arguments as of `popcount_conv`."""
    group = 1 if in_words else TABLE_FILTERS // BLOCK

    @helper
    def convolve(part, first_pair, last_pair, source, keep, weights, scale, s1, s2, target, scratch) -> None:
        size = source.map.shape[0], source.map.shape[1]
        height, width = size
        channels = source.vectors * BYTES // 4
        blocks, radius = target.blocks.size, weights.radius
        pixel = (channels // 8 + 7) // 8 * 8
        row_bits, row_values, sums_row = (width + 2) * pixel, width * channels * 4, 2 * target.sums.shape[2] * 4
        group_bytes = weights.bits.size * weights.bits.itemsize // weights.bits.shape[0]
        counts_pixel = group * BLOCK * COUNT_BYTES
        own = _scratch_from(address(scratch) + part * scratch.shape[1], width, channels, source.normalise)
        clear(own.bits, own.values - own.bits)
        first, last = 2 * first_pair, min(2 * last_pair, height)
        done = first - radius
        for y in range(first, last, 2):
            _pack_rows(
                source, done, y + 2 + radius, Strided(own.bits, row_bits), pixel, Strided(own.values, row_values), size
            )
            done = y + 2 + radius
            bits = BitRows(own.bits, row_bits, (y - radius + ROWS) % ROWS)
            here = min(2, height - y)
            clear(address(target.sums) + y * sums_row, here * sums_row)
            if not in_words:
                pair_rows(bits, own.prepared, y, size, Taps(radius, pixel, address(weights.bits)), channels // 4)
            for x in range(0, width, SEGMENT):
                segment = Segment(x, min(SEGMENT, width - x), width)
                for block in range(blocks):
                    taps = Taps(radius, pixel, address(weights.bits) + block // group * group_bytes)
                    upper = _prefetch(source, s2, target, y, segment, block, radius, size)
                    lower = _prefetch(source, s2, target, min(y + 1, height - 1), segment, block, radius, size)
                    if in_words:
                        popcount_pair(bits, taps, segment, own.counts, upper, lower)
                    elif block % group == 0:
                        table, lines = address(weights.table), min(group, blocks - block)
                        lookup_pair(table, own.prepared, channels // 4, taps, segment, own.counts, upper, lower, lines)
                    for r in range(here):
                        counts = own.counts + r * SEGMENT * counts_pixel + block % group * BLOCK * COUNT_BYTES
                        if keep:
                            kept = own.values + (y + r) % ROWS * row_values + block * BLOCK_BYTES
                            shortcut = Strided(kept, channels * 4)
                        else:
                            row = address(s1.map) + s1.first + (y + r) * s1.row + block * s1.block
                            shortcut = Strided(row, s1.pixel)
                        _epilogues(
                            Strided(counts, counts_pixel),
                            segment,
                            y + r,
                            block,
                            weights,
                            scale,
                            shortcut,
                            s2,
                            target,
                            size,
                        )

    return convolve


_by_popcount, _by_lookup = convolution(in_words=True), convolution(in_words=False)


@kernel
def popcount_conv(source, keep, weights, scale, s1, s2, target, scratch) -> None:
    """One convolution of a map (H, W, C).

    source: `Source`. keep: the first shortcut is the normalised source, in place of s1. weights: `PackedWeight`. scale:
    `Scale`. s1, s2: `Shortcut`. target: `Target`. scratch: uint8 (threads, bytes), see `scratch_from`.
    """
    pairs = (source.map.shape[0] + 1) // 2
    arguments = source, keep, weights, scale, s1, s2, target, scratch
    split(pairs, _by_popcount, arguments)


@kernel
def lookup_conv(source, keep, weights, scale, s1, s2, target, scratch) -> None:
    """`popcount_conv` with the look-up table of `lookup` in place of popcount."""
    pairs = (source.map.shape[0] + 1) // 2
    arguments = source, keep, weights, scale, s1, s2, target, scratch
    split(pairs, _by_lookup, arguments)

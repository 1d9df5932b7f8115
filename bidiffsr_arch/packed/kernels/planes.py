"""The 1-bit convolution for training, on batches of maps in PyTorch's layout.

Words of bits lie side by side along a row of the image, so that one vector holds a word of each of 8 neighbouring
pixels. PyTorch stores maps channel by channel, so reads and writes of a row are contiguous.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.places import Strided
from bidiffsr_arch.packed.kernels.popcount import FAST
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import (
    I64,
    address,
    call,
    constant,
    int64,
    load,
    offset,
    procedure,
    repeat,
    spread,
    store,
)
from bidiffsr_arch.packed.layout import PLANE_FILTERS as FILTERS
from bidiffsr_arch.packed.layout import WORD

WORDS = ir.VectorType(I64, 8)
COUNTS = ir.VectorType(ir.IntType(16), 8)
VECTORS = 4 if FAST else 1
"""Vectors of pixels that share a load of weights, where a row is that long: as many as there are registers."""


class Planes(NamedTuple):
    """Words of bits: the address of the first that is read, and the strides of rows and planes."""

    start: int
    row: int
    plane: int


class PlaneTaps(NamedTuple):
    """Weights of FILTERS filters: radius of the taps, words of the channels, address of the weights."""

    radius: int
    words: int
    weights: int


def planes_tile(vectors: int) -> Callable:
    """The function that counts differing bits of 8 * `vectors` neighbouring pixels with FILTERS filters."""

    @procedure
    def count(b, bits, taps, counts) -> None:
        """counts[f][p] = sum over words w, taps (dy, dx) of popcount(bits[w][dy][p + dx] ^ weights[w][dy][dx][f]),
        uint16. Exact: 64-bit counters.

        bits: `Planes`. taps: `PlaneTaps`. counts: `Strided`, filter by filter.
        """
        side = b.add(b.mul(taps.radius, int64(2)), int64(1))

        def word(w, counters) -> list[Value]:
            def row(dy, counters) -> list[Value]:
                def tap(dx, counters) -> list[Value]:
                    place = b.add(b.mul(b.add(b.mul(w, side), dy), side), dx)
                    start = offset(b, taps.weights, b.mul(place, int64(8 * FILTERS)))
                    filters = [spread(b, load(b, offset(b, start, 8 * f), I64, 8), WORDS) for f in range(FILTERS)]
                    source = offset(b, bits.start, b.add(b.mul(w, bits.plane), b.mul(dy, bits.row)))
                    source = offset(b, source, b.mul(dx, int64(8)))
                    following = []
                    for v in range(vectors):
                        pixels = load(b, offset(b, source, 64 * v), WORDS, 8)
                        for f in range(FILTERS):
                            differing = call(b, "ctpop", b.xor(pixels, filters[f]))
                            following.append(b.add(counters[v * FILTERS + f], differing))
                    return following

                return repeat(b, side, counters, tap)

            return repeat(b, side, counters, row)

        totals = repeat(b, taps.words, [constant(0, WORDS)] * (vectors * FILTERS), word)
        for position, total in enumerate(totals):
            v, f = divmod(position, FILTERS)
            place = offset(b, offset(b, counts.start, b.mul(counts.step, int64(f))), 16 * v)
            store(b, b.trunc(total, COUNTS), place, 2)

    return count


_tile, _vector = planes_tile(VECTORS), planes_tile(1)


@helper
def _count_row(bits, taps, counts, width) -> None:
    """Counts of a row of `width` pixels; the arguments are those of `planes_tile`'s function."""
    x = 0
    while x < width:
        here, to = Planes(bits.start + 8 * x, bits.row, bits.plane), Strided(counts.start + 2 * x, counts.step)
        if width - x > (VECTORS - 1) * 8:
            _tile(here, taps, to)
            x += VECTORS * 8
        else:
            _vector(here, taps, to)
            x += 8


@helper
def _pack_plane_rows(part, first, last, x, shift, radius, bits) -> None:
    """Rows first to last - 1, all samples' rows counted through."""
    channels, height, width = x.shape[1:]
    words, rows = bits.shape[1], bits.shape[2]
    for job in range(first, last):
        n, row = job // rows, job % rows
        y = row - radius
        for w in range(words):
            target = bits[n, w, row]
            target[:] = 0
            if 0 <= y < height:
                inside = target[radius : radius + width]
                for c in range(w * WORD, min((w + 1) * WORD, channels)):
                    source, s = x[n, c, y], shift[n % shift.shape[0], c]
                    bit = np.uint64(1) << np.uint64(c % WORD)
                    for i in range(width):
                        inside[i] |= bit if source[i] + s >= 0 else np.uint64(0)


@kernel
def pack_planes(x, shift, radius, bits) -> None:
    """Pack signs: the bit of channel c is set where ``x + shift >= 0``.

    x: float32 (B, C, H, W). shift: float32 (B or 1, C). bits: uint64 (B, ceil(C / 64), H + 2 * radius,
    W + 2 * radius + PLANE_SLACK), fully overwritten; 0 outside of the image.
    """
    split(bits.shape[0] * bits.shape[2], _pack_plane_rows, (x, shift, radius, bits))


@helper
def _pack_blocks(part, first, last, v, weights, sums) -> None:
    """Blocks first to last - 1 of filters."""
    filters, channels, taps = v.shape
    for block in range(first, last):
        weights[block] = 0
        for f in range(min(FILTERS, filters - block * FILTERS)):
            source, ones = v[block * FILTERS + f], sums[block * FILTERS + f]
            ones[:] = 0
            for w in range(weights.shape[1]):
                for c in range(w * WORD, min((w + 1) * WORD, channels)):
                    for tap in range(taps):
                        one = source[c, tap] >= 0
                        weights[block, w, tap, f] |= np.uint64(one) << np.uint64(c % WORD)
                        ones[tap] += one
            for tap in range(taps):
                ones[tap] = channels - 2 * ones[tap]
            ones[taps] = channels * taps


@kernel
def pack_filters(v, weights, sums) -> None:
    """Pack the signs of weights, and sum what each tap adds outside of the image.

    v: float32 (C_out, C_in, taps), +1 where not negative. weights: uint64 (ceil(C_out / FILTERS), ceil(C_in / 64),
    taps, FILTERS), fully overwritten. sums: int32 (C_out, taps + 1), fully overwritten: each tap's sum of ``-1 * w``
    over the channels, which the tap adds where activation bits are 0, and last the number of all bits.
    """
    split(weights.shape[0], _pack_blocks, (v, weights, sums))


@helper
def _above_and_below(sums, c, y, height, radius) -> int:
    """What filter c's taps above and below the image add to row y; sums: those of `pack_filters`."""
    side, total = 2 * radius + 1, 0
    for dy in range(side):
        if not 0 <= y + dy - radius < height:
            for dx in range(side):
                total += sums[c, dy * side + dx]
    return total


@helper
def _beside(sums, c, y, x, height, width, radius) -> int:
    """What filter c's taps beside the image, in its rows, add to the pixel (y, x)."""
    side, total = 2 * radius + 1, 0
    for dx in range(side):
        if not 0 <= x + dx - radius < width:
            for dy in range(side):
                if 0 <= y + dy - radius < height:
                    total += sums[c, dy * side + dx]
    return total


@helper
def _count_plane_rows(part, first, last, bits, weights, sums, differing, n) -> None:
    """Rows first to last - 1, all samples' rows counted through."""
    filters, height, width = n.shape[1:]
    words, radius = weights.shape[1], (bits.shape[2] - height) // 2
    side = 2 * radius + 1
    row, plane = bits.shape[3] * 8, bits.shape[2] * bits.shape[3] * 8
    counts = differing[part]
    target = Strided(address(counts), counts.shape[1] * 2)
    for job in range(first, last):
        image, y = job // height, job % height
        source = Planes(address(bits) + image * words * plane + y * row, row, plane)
        for block in range(weights.shape[0]):
            taps = PlaneTaps(radius, words, address(weights) + block * words * side * side * FILTERS * 8)
            _count_row(source, taps, target, width)
            for f in range(min(FILTERS, filters - block * FILTERS)):
                c = block * FILTERS + f
                total = sums[c, side * side] - _above_and_below(sums, c, y, height, radius)
                out, here = n[image, c, y], counts[f]
                for x in range(width):
                    out[x] = np.int32(total) - 2 * np.int32(here[x])
                for column in range(2 * radius):  # a narrow image meets some of them twice
                    x = min(column, width - 1) if column < radius else max(width - 1 - column + radius, 0)
                    out[x] = np.int32(total - _beside(sums, c, y, x, height, width, radius)) - 2 * np.int32(here[x])


@kernel
def count_planes(bits, weights, sums, differing, n) -> None:
    """``n = conv(±1, ±1)``, a tap outside of the image adding 0.

    bits, weights, sums: see `pack_planes` and `pack_filters`. differing: scratch, uint16 (threads, FILTERS,
    W + PLANE_SLACK). n: int16 (B, C_out, H, W), written.
    """
    split(n.shape[0] * n.shape[2], _count_plane_rows, (bits, weights, sums, differing, n))

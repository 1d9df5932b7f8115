"""1-bit dot products by XOR and popcount, one 64-bit lane per output channel: portable, and the fastest kernel where
AVX-512 counts bits.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir
from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.prefetch import prefetch
from bidiffsr_arch.packed.kernels.vector_ir import (
    FEATURES,
    I64,
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
from bidiffsr_arch.packed.layout import BLOCK, COUNT_BYTES, ROWS, SEGMENT

FAST = "avx512vpopcntdq" in FEATURES
"""Whether this CPU counts the bits of 512-bit vectors in one instruction."""

WORDS = ir.VectorType(I64, 8)
COUNTS = ir.VectorType(ir.IntType(8 * COUNT_BYTES), 8)
HALVES = BLOCK // WORDS.count
TILE = 8 if FAST else 2
"""Pixels that share a load of the weights: as many as there are registers for their counters."""

PIXEL_BYTES = COUNT_BYTES * BLOCK


def popcount_tile(pixels: int) -> Callable:
    """The function that counts differing bits of `pixels` pixels with BLOCK filters."""

    @procedure
    def count(b, bits, taps, first, counts) -> None:
        """counts[p][o] = sum over rows r and words i of popcount(row_r[first + p][i] ^ weights[r][i][o]), uint16
        (pixels, BLOCK).

        bits: `WordRows`; taps: `Taps`. The words of all taps of a row are contiguous, as those of neighbouring pixels
        are. Exact: at most 64 bits per word, 64-bit counters.
        """

        def row_of_taps(r, counters) -> list[Value]:
            later = b.select(b.icmp_signed("==", r, int64(1)), bits.second, bits.third)
            row = b.select(b.icmp_signed("==", r, int64(0)), bits.first, later)
            row = offset(b, row, b.mul(taps.pixel, first))
            start = offset(b, taps.weights, b.mul(b.mul(r, bits.words), int64(8 * BLOCK)))

            def word(i, counters) -> list[Value]:
                position = offset(b, start, b.mul(i, int64(8 * BLOCK)))
                filters = [load(b, offset(b, position, 64 * h), WORDS, 8) for h in range(HALVES)]
                following = []
                for p in range(pixels):
                    place = offset(b, offset(b, row, b.mul(taps.pixel, int64(p))), b.mul(i, int64(8)))
                    word_bits = spread(b, load(b, place, I64, 8), WORDS)
                    for h in range(HALVES):
                        differing = call(b, "ctpop", b.xor(word_bits, filters[h]))
                        following.append(b.add(counters[p * HALVES + h], differing))
                return following

            return repeat(b, bits.words, counters, word)

        totals = repeat(b, bits.rows, [constant(0, WORDS)] * (pixels * HALVES), row_of_taps)
        for position, total in enumerate(totals):
            store(b, b.trunc(total, COUNTS), offset(b, counts, 8 * COUNT_BYTES * position), COUNT_BYTES)

    return count


_tile = popcount_tile(TILE)
_pixel = popcount_tile(1)


class WordRows(NamedTuple):
    """Addresses of the three rows that the taps of an output row read (only the first `rows` are used), and the number
    of words that the taps of a row span.
    """

    first: int
    second: int
    third: int
    rows: int
    words: int


@helper
def popcount_row(bits, taps, counts, pixels, upcoming) -> None:
    """Counts of neighbouring pixels, uint16 (pixels, BLOCK), to the address `counts`.

    bits: `WordRows`. taps: `Taps`. upcoming: what to prefetch during the loop (`Prefetch`).
    """
    x = 0
    while x + TILE <= pixels:
        prefetch(upcoming, x, TILE)
        _tile(bits, taps, x, counts + x * PIXEL_BYTES)
        x += TILE
    while x < pixels:
        _pixel(bits, taps, x, counts + x * PIXEL_BYTES)
        x += 1


@helper
def popcount_pair(bits, taps, segment, counts, upper, lower) -> None:
    """Counts of a segment of two output rows, uint16 (2, SEGMENT, BLOCK), to the address `counts`.

    bits: `BitRows` that start with the upper row's first. taps: `Taps`. segment: `Segment`. upper, lower: what to
    prefetch during the loop for each row (`Prefetch`).
    """
    start = bits.start + (segment.x + 1 - taps.radius) * taps.pixel
    rows = 2 * taps.radius + 1
    words = rows * taps.pixel // 8
    row0 = start + bits.slot * bits.row
    row1 = start + (bits.slot + 1) % ROWS * bits.row
    row2 = start + (bits.slot + 2) % ROWS * bits.row
    row3 = start + (bits.slot + 3) % ROWS * bits.row
    popcount_row(WordRows(row0, row1, row2, rows, words), taps, counts, segment.pixels, upper)
    below = counts + SEGMENT * PIXEL_BYTES
    popcount_row(WordRows(row1, row2, row3, rows, words), taps, below, segment.pixels, lower)

"""1-bit dot products by XOR and popcount, one 64-bit lane an output channel: portable, and the fastest where AVX-512
counts bits by itself.
"""

from llvmlite import ir

from bidiffsr_arch.packed.kernels.ahead import fetch_ahead
from bidiffsr_arch.packed.kernels.compile import helper
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


def popcount_tile(pixels: int):
    """Function that counts differing bits of `pixels` pixels with BLOCK filters."""

    @procedure
    def count(b, row0, row1, row2, rows, words, pixel_bytes, weights, counts):
        """counts[p][o] = sum over rows r and words i of popcount(row_r[p][i] ^ weights[r][i][o]), uint16 (pixels,
        BLOCK).

        `words` are those of all taps of a row, which lie side by side, as neighbouring pixels do. Exact: at most 64
        bits a word, 64-bit counters.
        """

        def row_of_taps(r, counters):
            row = b.select(
                b.icmp_signed("==", r, int64(0)), row0, b.select(b.icmp_signed("==", r, int64(1)), row1, row2)
            )
            start = offset(b, weights, b.mul(b.mul(r, words), int64(8 * BLOCK)))

            def word(i, counters):
                position = offset(b, start, b.mul(i, int64(8 * BLOCK)))
                filters = [load(b, offset(b, position, 64 * h), WORDS, 8) for h in range(HALVES)]
                following = []
                for p in range(pixels):
                    place = offset(b, offset(b, row, b.mul(pixel_bytes, int64(p))), b.mul(i, int64(8)))
                    bits = spread(b, load(b, place, I64, 8), WORDS)
                    for h in range(HALVES):
                        following.append(b.add(counters[p * HALVES + h], call(b, "ctpop", b.xor(bits, filters[h]))))
                return following

            return repeat(b, words, counters, word)

        totals = repeat(b, rows, [constant(0, WORDS)] * (pixels * HALVES), row_of_taps)
        for position, total in enumerate(totals):
            store(b, b.trunc(total, COUNTS), offset(b, counts, 8 * COUNT_BYTES * position), COUNT_BYTES)

    return count


_tile = popcount_tile(TILE)
_pixel = popcount_tile(1)


@helper
def popcount_row(row0, row1, row2, rows, words, pixel_bytes, weights, counts, width, ahead):
    """Counts of `width` neighbouring pixels, uint16 (width, BLOCK)."""
    x = 0
    while x + TILE <= width:
        d = x * pixel_bytes
        fetch_ahead(ahead, x, TILE)
        _tile(row0 + d, row1 + d, row2 + d, rows, words, pixel_bytes, weights, counts + x * PIXEL_BYTES)
        x += TILE
    while x < width:
        d = x * pixel_bytes
        _pixel(row0 + d, row1 + d, row2 + d, rows, words, pixel_bytes, weights, counts + x * PIXEL_BYTES)
        x += 1


@helper
def popcount_pair(bits, row_bits, slots, radius, pixel_bytes, weights, counts, x, pixels, upper, lower):
    """Counts of a segment of two output rows, uint16 (2, SEGMENT, BLOCK), from the rows of bits that start at slot
    `slots`. upper, lower: what to ask memory for meanwhile for each (`Ahead`).
    """
    start = bits + (x + 1 - radius) * pixel_bytes
    rows = 2 * radius + 1
    words = rows * pixel_bytes // 8
    r0 = start + slots * row_bits
    r1 = start + (slots + 1) % ROWS * row_bits
    r2 = start + (slots + 2) % ROWS * row_bits
    r3 = start + (slots + 3) % ROWS * row_bits
    popcount_row(r0, r1, r2, rows, words, pixel_bytes, weights, counts, pixels, upper)
    popcount_row(r1, r2, r3, rows, words, pixel_bytes, weights, counts + SEGMENT * PIXEL_BYTES, pixels, lower)

"""1-bit dot products by table look-up, for CPUs whose vectors have a byte shuffle (AVX2) but count no bits.

The activation nibble of 4 channels selects a table of 16 counts, and the weight nibble indexes it. A count is at most
4, so one byte holds the counts of two pixels, from two rows of the image (`layout.pair_table`). Over 3 groups, each
nibble sums to at most 12; then the two pixels are separated::

    s      = sum over 3 groups of shuffle(table[pair], weights)    # bytes; low nibble: upper pixel, high: lower pixel
    low   += s & 15                                                # bytes
    mixed += s >> 4                                                # 64-bit lanes

    high   = mixed - ((low without its lowest byte) >> 4)          # 64-bit lanes

The shift of a 64-bit lane drops the low nibble of its lowest byte, and moves the low nibble of every other byte into
the high nibble of the byte below. `low` is the sum of those nibbles, so the subtraction takes out exactly what leaked,
as long as no byte overflows: STEPS * 12 <= 255.
"""

from collections.abc import Callable, Iterator

from llvmlite import ir
from llvmlite.ir import Value
from numba.core import cgutils

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.prefetch import prefetch
from bidiffsr_arch.packed.kernels.vector_ir import (
    FEATURES,
    I8,
    I32,
    I64,
    constant,
    int64,
    load,
    offset,
    opaque,
    procedure,
    repeat,
    spread,
    store,
)
from bidiffsr_arch.packed.layout import BLOCK, COUNT_BYTES, OUTSIDE, ROWS, SEGMENT, TABLE_FILTERS, TABLE_STEP

STEPS = 16
"""Steps of 3 groups between two separations: a byte is at most 16 * 12 = 192; 3 KB of weights stay in the L1 cache."""

ENTRY = 32
"""Bytes of an entry of the table."""

PIXEL_BYTES = TABLE_FILTERS * COUNT_BYTES
ROW_BYTES = SEGMENT * PIXEL_BYTES

I16 = ir.IntType(16)
V8, V16, V64 = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I64, 4)
HALF_WORD = ir.VectorType(I8, 8)


@helper
def _prepared_row(width, groups) -> int:
    """Bytes of a row of table offsets; the word written for the last pixel may reach beyond its end."""
    return (width + 2) * groups * 2 + 64


def _shuffle(b, table, index) -> Value:
    """Byte i of the result is byte ``index[i] % 16`` of the same half of `table`, 0 where index[i] >= 128.

    Without AVX2 there is no such instruction, and `backends` does not select this kernel.
    """
    if "avx2" not in FEATURES:
        return constant(0, V8)
    function = ir.FunctionType(V8, [V8, V8])
    return b.call(cgutils.get_or_insert_function(b.module, function, "llvm.x86.avx2.pshuf.b"), [table, index])


def _widened(b, bytes_) -> Iterator[Value]:
    """Bytes as 16-bit numbers, in two vectors. They are widened within halves of the vector, which undoes the order
    `layout.TABLE_ORDER` of filters.
    """
    zeros = constant(0, V8)
    for half in range(2):
        lanes = [lane for part in range(2) for q in range(8) for lane in (part * 16 + half * 8 + q, 32)]
        yield b.bitcast(b.shuffle_vector(bytes_, zeros, ir.Constant(ir.VectorType(I32, 32), lanes)), V16)


def pair_counter(halves: int) -> Callable:
    """The function that counts one pair of pixels with 32 * `halves` filters."""

    @procedure
    def count(b, table, pairs, weights, steps, counts, accumulate) -> None:
        """Counts over ``3 * steps`` groups, to counts[0] and counts[1], 16 bits (2, SEGMENT, 64).

        pairs: uint16 offsets into the table, one per group. weights: 64 bytes per group. steps <= STEPS.
        """

        def step(i, carried) -> list[Value]:
            filters, low, mixed = carried[0], carried[1 : 1 + halves], carried[1 + halves :]
            place = offset(b, pairs, b.mul(i, int64(2 * TABLE_STEP)))
            sums = [constant(0, V8)] * halves
            for group in range(TABLE_STEP):
                entry = b.zext(load(b, offset(b, place, 2 * group), I16, 2), I64)
                selected = load(b, offset(b, table, entry), V8, 1)
                for half in range(halves):
                    index = load(b, offset(b, filters, group * TABLE_FILTERS + half * 32), V8, 1)
                    sums[half] = b.add(sums[half], _shuffle(b, selected, index))
            low = [b.add(total, b.and_(here, constant(15, V8))) for total, here in zip(low, sums, strict=True)]
            shifted = [b.lshr(b.bitcast(here, V64), constant(4, V64)) for here in sums]
            mixed = [b.add(total, here) for total, here in zip(mixed, shifted, strict=True)]
            return [opaque(b, offset(b, filters, TABLE_FILTERS * TABLE_STEP)), *low, *mixed]

        _, *totals = repeat(b, steps, [weights] + [constant(0, V8)] * halves + [constant(0, V64)] * halves, step)
        more = b.icmp_signed("!=", accumulate, int64(0))
        for half in range(halves):
            low, mixed = totals[half], totals[halves + half]
            leaked = b.lshr(b.and_(b.bitcast(low, V64), constant(2**64 - 256, V64)), constant(4, V64))
            high = b.bitcast(b.sub(mixed, leaked), V8)
            for pixel, value in enumerate((low, high)):
                for part, wide in enumerate(_widened(b, value)):
                    place = offset(b, counts, pixel * ROW_BYTES + (half * 32 + part * 16) * COUNT_BYTES)
                    before = b.select(more, load(b, place, V16, 2), constant(0, V16))
                    store(b, b.add(before, wide), place, 2)

    return count


@procedure
def _pair_word(b, upper, lower, outside, pairs) -> None:
    """Table offsets of 16 pairs of nibbles, from a word of bits of each row, to uint16; outside: added to each."""

    def nibbles(address) -> Value:
        bytes_ = load(b, address, HALF_WORD, 1)
        low, high = b.and_(bytes_, constant(15, HALF_WORD)), b.lshr(bytes_, constant(4, HALF_WORD))
        order = [lane for byte in range(8) for lane in (byte, 8 + byte)]
        return b.zext(b.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, 16), order)), V16)

    first = b.mul(nibbles(upper), constant(ENTRY, V16))
    second = b.mul(nibbles(lower), constant(17 * ENTRY, V16))
    store(b, b.add(b.add(first, second), spread(b, b.trunc(outside, I16), V16)), pairs, 2)


@procedure
def _outside_pairs(b, pairs) -> None:
    """Table offsets of 4 pairs of nibbles of pixels outside of the image."""
    store(b, constant(18 * OUTSIDE * ENTRY, ir.VectorType(I16, 4)), pairs, 2)


@helper
def pair_rows(bits, prepared, y, size, taps, groups) -> None:
    """For each row of taps, the table offsets of the pixel pairs of rows y and y + 1: uint16 (2 radius + 1, width + 2,
    groups), to the address `prepared`.

    bits: `BitRows` that start with row y - radius; rows outside of the image have bits 0. size: height and width. taps:
    `Taps`. A pixel's last word may reach into the next pixel, which then is written itself.
    """
    height, width = size
    for tap in range(2 * taps.radius + 1):
        row, outside = y - taps.radius + tap, 0
        if row < 0 or row >= height:
            outside += OUTSIDE * ENTRY
        if row + 1 < 0 or row + 1 >= height:
            outside += 17 * OUTSIDE * ENTRY
        upper = bits.start + (bits.slot + tap) % ROWS * bits.row
        lower = bits.start + (bits.slot + tap + 1) % ROWS * bits.row
        out = prepared + tap * _prepared_row(width, groups)
        for x in range(1, width + 1):
            for word in range(0, taps.pixel, 8):
                d = x * taps.pixel + word
                _pair_word(upper + d, lower + d, outside, out + x * groups * 2 + word * 4)
        for group in range(0, groups, 4):
            _outside_pairs(out + group * 2)
            _outside_pairs(out + ((width + 1) * groups + group) * 2)


def segment_counter(halves: int) -> Callable:
    """`lookup_pair` for 32 * `halves` filters."""
    count = pair_counter(halves)

    @helper
    def lookup(table, prepared, groups, taps, segment, counts, upper, lower, lines) -> None:
        side = 2 * taps.radius + 1
        steps = (side * groups + TABLE_STEP - 1) // TABLE_STEP
        for tap in range(side):
            row = prepared + tap * _prepared_row(segment.width, groups) + (segment.x + 1 - taps.radius) * groups * 2
            for start in range(0, steps, STEPS):
                filters = taps.weights + (tap * steps + start) * TABLE_STEP * TABLE_FILTERS
                now = min(STEPS, steps - start)
                for i in range(segment.pixels):
                    if tap + start == 0:
                        prefetch(upper, i * lines, lines)
                        prefetch(lower, i * lines, lines)
                    place = row + i * groups * 2 + start * TABLE_STEP * 2
                    count(table, place, filters, now, counts + i * PIXEL_BYTES, tap + start)

    return lookup


_all, _half = segment_counter(2), segment_counter(1)


@helper
def lookup_pair(table, prepared, groups, taps, segment, counts, upper, lower, lines) -> None:
    """Counts of a segment of two output rows and 64 filters, 16 bits (2, SEGMENT, 64). Exact while 9 C < 2^16.

    table, prepared, counts: addresses. groups: of 4 channels. taps: `Taps`. segment: `Segment`. upper, lower: what to
    prefetch for each row (`Prefetch`). lines: number of blocks of filters, and of cache lines to prefetch per pixel.
    """
    if 2 * lines * BLOCK <= TABLE_FILTERS:
        _half(table, prepared, groups, taps, segment, counts, upper, lower, lines)
    else:
        _all(table, prepared, groups, taps, segment, counts, upper, lower, lines)

"""1-bit dot products by table look-up, for CPUs whose vectors have a byte shuffle (AVX2) but count no bits.

The weight nibble of 4 channels indexes a table of 16 counts that the activation nibble selects. A count is at most 4,
so one byte holds two pixels, of two rows of the image: `layout.pair_table`. Both pixels of 3 groups add up to at most
12 a nibble before they must be taken apart::

    s      = sum over 3 groups of shuffle(table[pair], weights)    # bytes; low nibble: upper pixel, high: lower pixel
    low   += s & 15                                                # bytes
    mixed += s >> 4                                                # 64-bit lanes

    high   = mixed - ((low without its lowest byte) >> 4)          # 64-bit lanes

The shift of a 64-bit lane drops the low nibble of its lowest byte, and moves the low nibble of every other byte into
the high nibble of the byte below. `low` is the sum of those nibbles, so the subtraction takes out exactly what leaked,
as long as no byte overflows: STEPS * 12 <= 255.
"""

from collections.abc import Iterator

from llvmlite import ir
from llvmlite.ir import Value
from numba import types
from numba.core import cgutils

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.prefetch import prefetch
from bidiffsr_arch.packed.kernels.vector_ir import (
    FEATURES,
    I64,
    constant,
    int64,
    load,
    offset,
    procedure,
    repeat,
    store,
)
from bidiffsr_arch.packed.layout import COUNT_BYTES, OUTSIDE, ROWS, SEGMENT, TABLE_FILTERS, TABLE_STEP

STEPS = 16
"""Steps of 3 groups between two unpackings: 16 * 12 = 192, and their 3 KB of weights stay in the first cache."""

ENTRY = 32
"""Bytes of an entry of the table."""

PIXEL_BYTES = TABLE_FILTERS * COUNT_BYTES
ROW_BYTES = SEGMENT * PIXEL_BYTES

V8, V16, V64 = ir.VectorType(ir.IntType(8), 32), ir.VectorType(ir.IntType(16), 16), ir.VectorType(I64, 4)


def _shuffle(b, table, index) -> Value:
    """Byte i of the result is byte ``index[i] % 16`` of the same half of `table`, 0 where index[i] >= 128.

    Without AVX2 there is no such instruction; `backends` then refuses to come here.
    """
    if "avx2" not in FEATURES:
        return constant(0, V8)
    function = ir.FunctionType(V8, [V8, V8])
    return b.call(cgutils.get_or_insert_function(b.module, function, "llvm.x86.avx2.pshuf.b"), [table, index])


def _widened(b, bytes_) -> Iterator[Value]:
    """Bytes as 16-bit numbers, in two vectors; within halves, so that filters come out in the order of
    `layout.TABLE_ORDER`'s inverse.
    """
    zeros = constant(0, V8)
    for half in range(2):
        lanes = [lane for part in range(2) for q in range(8) for lane in (part * 16 + half * 8 + q, 32)]
        yield b.bitcast(b.shuffle_vector(bytes_, zeros, ir.Constant(ir.VectorType(ir.IntType(32), 32), lanes)), V16)


@procedure
def _count_pair(b, table, pairs, weights, steps, counts, accumulate) -> None:
    """Counts of one pair of pixels and 64 filters over ``3 * steps`` groups, to counts[0] and counts[1], 16 bits (2,
    SEGMENT, 64).

    pairs: uint16 offsets into the table, one a group. weights: 64 bytes a group. steps <= STEPS.
    """

    def step(i, carried) -> list[Value]:
        low, mixed = carried[:2], carried[2:]
        place = offset(b, pairs, b.mul(i, int64(2 * TABLE_STEP)))
        filters = offset(b, weights, b.mul(i, int64(TABLE_FILTERS * TABLE_STEP)))
        sums = [None, None]
        for group in range(TABLE_STEP):
            entry = b.zext(load(b, offset(b, place, 2 * group), ir.IntType(16), 2), I64)
            selected = load(b, offset(b, table, entry), V8, 1)
            for half in range(2):
                index = load(b, offset(b, filters, group * TABLE_FILTERS + half * 32), V8, 1)
                found = _shuffle(b, selected, index)
                sums[half] = found if group == 0 else b.add(sums[half], found)
        low = [b.add(low[half], b.and_(sums[half], constant(15, V8))) for half in range(2)]
        mixed = [b.add(mixed[half], b.lshr(b.bitcast(sums[half], V64), constant(4, V64))) for half in range(2)]
        return low + mixed

    totals = repeat(b, steps, [constant(0, V8)] * 2 + [constant(0, V64)] * 2, step)
    more = b.icmp_signed("!=", accumulate, int64(0))
    for half in range(2):
        low, mixed = totals[half], totals[2 + half]
        leaked = b.lshr(b.and_(b.bitcast(low, V64), constant(2**64 - 256, V64)), constant(4, V64))
        high = b.bitcast(b.sub(mixed, leaked), V8)
        for pixel, value in enumerate((low, high)):
            for part, wide in enumerate(_widened(b, value)):
                place = offset(b, counts, pixel * ROW_BYTES + (half * 32 + part * 16) * COUNT_BYTES)
                before = b.select(more, load(b, place, V16, 2), constant(0, V16))
                store(b, b.add(before, wide), place, 2)


@procedure
def _store_pair(b, address, value) -> None:
    store(b, b.trunc(value, ir.IntType(16)), address, 2)


@procedure(returns=types.int64)
def _byte(b, address) -> Value:
    return b.zext(load(b, address, ir.IntType(8), 1), I64)


@helper
def pair_rows(bits, prepared, y, size, taps) -> None:
    """For each row of taps, the table offsets of the pixel pairs of rows y and y + 1: uint16 (2 radius + 1, width + 2,
    groups), to the address `prepared`.

    bits: `BitRows` that start with row y - radius. size: height and width. taps: `Taps`.
    """
    height, width = size
    groups = 2 * taps.pixel
    for tap in range(2 * taps.radius + 1):
        row = y - taps.radius + tap
        upper_outside, lower_outside = row < 0 or row >= height, row + 1 < 0 or row + 1 >= height
        upper = bits.start + (bits.slot + tap) % ROWS * bits.row
        lower = bits.start + (bits.slot + tap + 1) % ROWS * bits.row
        out = prepared + tap * ((width + 2) * groups * 2 + 64)
        for x in range(width + 2):
            side = x == 0 or x == width + 1
            for i in range(taps.pixel):
                a, b = _byte(upper + x * taps.pixel + i), _byte(lower + x * taps.pixel + i)
                for part in range(2):
                    first = OUTSIDE if side or upper_outside else (a >> (4 * part)) & 15
                    second = OUTSIDE if side or lower_outside else (b >> (4 * part)) & 15
                    _store_pair(out + ((x * taps.pixel + i) * 2 + part) * 2, (first + 17 * second) * ENTRY)


@helper
def lookup_pair(table, prepared, taps, segment, counts, upper, lower, lines) -> None:
    """Counts of a segment of two output rows and 64 filters, 16 bits (2, SEGMENT, 64). Exact while 9 C < 2^16.

    table, prepared, counts: addresses. taps: `Taps`. segment: `Segment`. upper, lower: what to prefetch meanwhile for
    each row (`Prefetch`), `lines` lines a pixel.
    """
    groups = 2 * taps.pixel
    side = 2 * taps.radius + 1
    steps = (side * groups + TABLE_STEP - 1) // TABLE_STEP
    for tap in range(side):
        row = prepared + tap * ((segment.width + 2) * groups * 2 + 64) + (segment.x + 1 - taps.radius) * groups * 2
        for start in range(0, steps, STEPS):
            filters = taps.weights + (tap * steps + start) * TABLE_STEP * TABLE_FILTERS
            now = min(STEPS, steps - start)
            for i in range(segment.pixels):
                if tap + start == 0:
                    prefetch(upper, i * lines, lines)
                    prefetch(lower, i * lines, lines)
                place = row + i * groups * 2 + start * TABLE_STEP * 2
                _count_pair(table, place, filters, now, counts + i * PIXEL_BYTES, tap + start)

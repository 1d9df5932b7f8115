"""What follows the counting of bits: one affine a channel, PReLU, shortcuts, and the sums that the next GroupNorm
needs.
"""

from llvmlite import ir

from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    FLOATS,
    INTS,
    LANES,
    constant,
    int64,
    load,
    multiply_add,
    offset,
    procedure,
    repeat,
    spread,
    store,
)
from bidiffsr_arch.packed.layout import BLOCK, COUNT_BYTES

VECTORS = BLOCK // LANES
COUNTS = ir.VectorType(ir.IntType(8 * COUNT_BYTES), LANES)


@procedure
def epilogue(
    b,
    pixels,
    counts,
    counts_pixel,
    totals,
    parameters,
    row,
    gain,
    gain_pixel,
    s1,
    s1_pixel,
    s2,
    s2_pixel,
    out,
    out_pixel,
    sums,
    squares,
):
    """``out = PReLU(scale * gain * (total - 2 count) + offset) + add + s1 + s2``, sums += out, squares += out^2.

    For BLOCK channels of a run of pixels. parameters: rows scale, offset, slope, add, `row` bytes each. gain: one
    number a pixel. s1, s2: maps to add; where there is none, a vector of zeros with a distance of 0 from pixel to
    pixel. Integers are below 2^17, so float32 holds them exactly.
    """
    for v in range(VECTORS):
        d = v * BYTES
        total = load(b, offset(b, totals, d), INTS)
        scale, shift, slope, add = (
            load(b, offset(b, offset(b, parameters, d), b.mul(row, int64(i)))) for i in range(4)
        )

        def pixel(i, carried, v=v, d=d, total=total, scale=scale, shift=shift, slope=slope, add=add):
            place = offset(b, offset(b, counts, v * LANES * COUNT_BYTES), b.mul(i, counts_pixel))
            count = b.zext(load(b, place, COUNTS, COUNT_BYTES), INTS)
            accumulator = b.sitofp(b.sub(total, b.shl(count, constant(1, INTS))), FLOATS)
            k = spread(b, load(b, offset(b, gain, b.mul(i, gain_pixel)), FLOATS.element))
            value = multiply_add(b, b.fmul(accumulator, k), scale, shift)
            value = b.select(b.fcmp_ordered(">", value, constant(0.0)), value, b.fmul(value, slope))
            value = b.fadd(value, add)
            value = b.fadd(value, load(b, offset(b, offset(b, s1, d), b.mul(i, s1_pixel))))
            value = b.fadd(value, load(b, offset(b, offset(b, s2, d), b.mul(i, s2_pixel))))
            store(b, value, offset(b, offset(b, out, d), b.mul(i, out_pixel)))
            return [b.fadd(carried[0], value), multiply_add(b, value, value, carried[1])]

        where = offset(b, sums, d), offset(b, squares, d)
        for address, value in zip(where, repeat(b, pixels, [load(b, a) for a in where], pixel), strict=True):
            store(b, value, address)

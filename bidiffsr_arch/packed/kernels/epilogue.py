"""The steps after counting bits: an affine per channel, PReLU, shortcuts, and the sums for the next GroupNorm."""

from typing import NamedTuple

from llvmlite import ir
from llvmlite.ir import Value

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


class Constants(NamedTuple):
    """Constants of BLOCK channels: addresses of their totals, and of their parameters (scale, offset, slope, add); rows
    of parameters are `row` bytes apart.
    """

    totals: int
    parameters: int
    row: int


@procedure
def epilogue(b, pixels, counts, constants, gain, first, second, out, sums) -> None:
    """``out = PReLU(scale * gain * (total - 2 count) + offset) + add + first + second``, and the sums of out.

    For BLOCK channels of a run of pixels. counts, gain, first, second, out: `Strided`. gain is one number per pixel;
    first and second are shortcuts, or zeros with a step of 0. The sums of out are added to sums (`Sums`). Integers are
    below 2^17, so float32 holds them exactly.
    """
    for v in range(VECTORS):
        d = v * BYTES
        total = load(b, offset(b, constants.totals, d), INTS)
        scale, shift, slope, add = (
            load(b, offset(b, offset(b, constants.parameters, d), b.mul(constants.row, int64(i)))) for i in range(4)
        )

        def pixel(i, carried, v=v, d=d, total=total, scale=scale, shift=shift, slope=slope, add=add) -> list[Value]:
            place = offset(b, offset(b, counts.start, v * LANES * COUNT_BYTES), b.mul(i, counts.step))
            count = b.zext(load(b, place, COUNTS, COUNT_BYTES), INTS)
            accumulator = b.sitofp(b.sub(total, b.shl(count, constant(1, INTS))), FLOATS)
            k = spread(b, load(b, offset(b, gain.start, b.mul(i, gain.step)), FLOATS.element))
            value = multiply_add(b, b.fmul(accumulator, k), scale, shift)
            value = b.select(b.fcmp_ordered(">", value, constant(0.0)), value, b.fmul(value, slope))
            value = b.fadd(value, add)
            value = b.fadd(value, load(b, offset(b, offset(b, first.start, d), b.mul(i, first.step))))
            value = b.fadd(value, load(b, offset(b, offset(b, second.start, d), b.mul(i, second.step))))
            store(b, value, offset(b, offset(b, out.start, d), b.mul(i, out.step)))
            return [b.fadd(carried[0], value), multiply_add(b, value, value, carried[1])]

        where = offset(b, sums.values, d), offset(b, sums.squares, d)
        for address, value in zip(where, repeat(b, pixels, [load(b, a) for a in where], pixel), strict=True):
            store(b, value, address)

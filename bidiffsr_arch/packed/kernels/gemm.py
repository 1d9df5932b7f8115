"""Small dense products, the arithmetic of full-precision convolutions: C[m][BLOCK] (+)= A[m][k] B[k][BLOCK] in
registers.
"""

from llvmlite import ir

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    LANES,
    WIDE,
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
from bidiffsr_arch.packed.layout import BLOCK

ROWS = 8 if WIDE else 6
"""Rows of A at a time: with BLOCK columns, their accumulators fill most vector registers and hide the latency of a
multiply-add.
"""

VECTORS = BLOCK // LANES
STEP = 4


def gemm_rows(rows: int):
    """Function for `rows` rows of A. k is a multiple of `STEP`; B lies as (k, BLOCK)."""

    @procedure
    def gemm(b, a, a_row, weights, k, c, c_row, accumulate):
        places = [
            offset(b, offset(b, c, b.mul(c_row, int64(r))), BYTES * v) for r in range(rows) for v in range(VECTORS)
        ]
        more = b.icmp_signed("!=", accumulate, int64(0))
        zero = constant(0.0)
        first = [b.select(more, load(b, place), zero) for place in places]

        def steps(i, sums):
            column = b.mul(i, int64(4 * STEP))
            row = offset(b, weights, b.mul(i, int64(4 * BLOCK * STEP)))
            for step in range(STEP):
                factors = [load(b, offset(b, row, step * 4 * BLOCK + v * BYTES)) for v in range(VECTORS)]
                following = []
                for r in range(rows):
                    place = offset(b, offset(b, offset(b, a, b.mul(a_row, int64(r))), column), 4 * step)
                    value = spread(b, load(b, place, ir.FloatType()))
                    following += [multiply_add(b, value, factors[v], sums[r * VECTORS + v]) for v in range(VECTORS)]
                sums = following
            return sums

        for place, value in zip(places, repeat(b, b.sdiv(k, int64(STEP)), first, steps), strict=True):
            store(b, value, place)

    return gemm


_rows = gemm_rows(ROWS)
_row = gemm_rows(1)


@helper
def gemm(a, a_row, m, weights, k, c, c_row, accumulate):
    """C (m, BLOCK) = A (m, k) B (k, BLOCK), plus what C held if `accumulate`; rows of A and C are `a_row` and `c_row`
    bytes apart.
    """
    r = 0
    while r + ROWS <= m:
        _rows(a + r * a_row, a_row, weights, k, c + r * c_row, c_row, accumulate)
        r += ROWS
    while r < m:
        _row(a + r * a_row, a_row, weights, k, c + r * c_row, c_row, accumulate)
        r += 1


@procedure
def finish_run(b, pixels, acc, acc_pixel, add, s, s_pixel, out, out_pixel, sums, squares):
    """out = acc + add + s, sums += out, squares += out^2 for BLOCK channels of a run of pixels."""
    for v in range(VECTORS):
        d = BYTES * v
        extra = load(b, offset(b, add, d))

        def pixel(i, carried, d=d, extra=extra):
            value = b.fadd(load(b, offset(b, offset(b, acc, d), b.mul(i, acc_pixel))), extra)
            value = b.fadd(value, load(b, offset(b, offset(b, s, d), b.mul(i, s_pixel))))
            store(b, value, offset(b, offset(b, out, d), b.mul(i, out_pixel)))
            return [b.fadd(carried[0], value), multiply_add(b, value, value, carried[1])]

        where = offset(b, sums, d), offset(b, squares, d)
        for address, value in zip(where, repeat(b, pixels, [load(b, a) for a in where], pixel), strict=True):
            store(b, value, address)

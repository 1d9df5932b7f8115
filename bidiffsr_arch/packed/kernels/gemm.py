"""Small dense products, the arithmetic of full-precision convolutions: C[m][BLOCK] (+)= A[m][k] B[k][BLOCK] in
registers.
"""

from collections.abc import Callable

from llvmlite import ir
from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.places import Strided
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


def gemm_rows(rows: int) -> Callable:
    """Function for `rows` rows of A and C (`Strided`). k is a multiple of `STEP`; B lies as (k, BLOCK)."""

    @procedure
    def gemm(b, a, weights, k, c, accumulate) -> None:
        places = [
            offset(b, offset(b, c.start, b.mul(c.step, int64(r))), BYTES * v)
            for r in range(rows)
            for v in range(VECTORS)
        ]
        more = b.icmp_signed("!=", accumulate, int64(0))
        zero = constant(0.0)
        first = [b.select(more, load(b, place), zero) for place in places]

        def steps(i, sums) -> list[Value]:
            column = b.mul(i, int64(4 * STEP))
            row = offset(b, weights, b.mul(i, int64(4 * BLOCK * STEP)))
            for step in range(STEP):
                factors = [load(b, offset(b, row, step * 4 * BLOCK + v * BYTES)) for v in range(VECTORS)]
                following = []
                for r in range(rows):
                    place = offset(b, offset(b, offset(b, a.start, b.mul(a.step, int64(r))), column), 4 * step)
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
def gemm(a, m, weights, k, c, accumulate) -> None:
    """C (m, BLOCK) = A (m, k) B (k, BLOCK), plus what C held if `accumulate`; rows of A and C are `Strided`."""
    r = 0
    while r + ROWS <= m:
        _rows(Strided(a.start + r * a.step, a.step), weights, k, Strided(c.start + r * c.step, c.step), accumulate)
        r += ROWS
    while r < m:
        _row(Strided(a.start + r * a.step, a.step), weights, k, Strided(c.start + r * c.step, c.step), accumulate)
        r += 1


@procedure
def finish_run(b, pixels, acc, add, shortcut, out, sums) -> None:
    """``out = acc + add + shortcut``, and the sums of out, for BLOCK channels of a run of pixels.

    acc, shortcut, out: `Strided`. add: address. sums: `Sums`, to which is added.
    """
    for v in range(VECTORS):
        d = BYTES * v
        extra = load(b, offset(b, add, d))

        def pixel(i, carried, d=d, extra=extra) -> list[Value]:
            value = b.fadd(load(b, offset(b, offset(b, acc.start, d), b.mul(i, acc.step))), extra)
            value = b.fadd(value, load(b, offset(b, offset(b, shortcut.start, d), b.mul(i, shortcut.step))))
            store(b, value, offset(b, offset(b, out.start, d), b.mul(i, out.step)))
            return [b.fadd(carried[0], value), multiply_add(b, value, value, carried[1])]

        where = offset(b, sums.values, d), offset(b, sums.squares, d)
        for address, value in zip(where, repeat(b, pixels, [load(b, a) for a in where], pixel), strict=True):
            store(b, value, address)

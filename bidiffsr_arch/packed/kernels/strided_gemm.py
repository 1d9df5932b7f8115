"""Small matrix products for training: C[m][n] += A[m][k] B[k][n], where A has any strides and may be transposed.

As in `gemm`, a tile of C stays in registers during the loop over k.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.gemm import FEW, MANY
from bidiffsr_arch.packed.kernels.places import Strided
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    FLOATS,
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

VECTORS = 2
WIDTH = VECTORS * BYTES
"""Bytes of the columns of a tile."""

STEP = 4
"""Steps of k per iteration of the loop."""

QUAD = 4
"""Rows of the smallest tile."""


class Matrix(NamedTuple):
    """A matrix: the address of its first element, and its strides."""

    start: int
    row: int
    column: int


def _tile(rows: int) -> Callable:
    """The function for `rows` rows of A and VECTORS vectors of columns; arguments as of `strided_gemm`."""

    @procedure
    def tile(b, a, weights, k, c, fresh) -> None:
        places = [
            offset(b, offset(b, c.start, b.mul(c.step, int64(r))), v * BYTES)
            for r in range(rows)
            for v in range(VECTORS)
        ]
        is_fresh = b.icmp_signed("!=", fresh, int64(0))
        begin = [b.select(is_fresh, constant(0.0), load(b, place)) for place in places]
        numbers = [offset(b, a.start, b.mul(a.row, int64(r))) for r in range(rows)]

        def turn(i, sums) -> list[Value]:
            column = b.mul(i, b.mul(a.column, int64(STEP)))
            line = offset(b, weights.start, b.mul(i, b.mul(weights.step, int64(STEP))))
            for _ in range(STEP):
                factors = [load(b, offset(b, line, v * BYTES)) for v in range(VECTORS)]
                following = []
                for r in range(rows):
                    value = spread(b, load(b, offset(b, numbers[r], column), FLOATS.element))
                    these = sums[r * VECTORS : (r + 1) * VECTORS]
                    following += [multiply_add(b, value, f, total) for f, total in zip(factors, these, strict=True)]
                sums = following
                column, line = b.add(column, a.column), b.add(line, weights.step)
            return sums

        turns = b.sdiv(k, int64(STEP))
        for value, place in zip(repeat(b, turns, begin, turn), places, strict=True):
            store(b, value, place)

    return tile


_many, _few, _quad = _tile(MANY), _tile(FEW), _tile(QUAD)


@helper
def strided_gemm(a, m, weights, k, c, fresh) -> None:
    """``C = A B`` if `fresh`, else ``C += A B``, for WIDTH bytes of columns.

    a: `Matrix`. m: rows, a multiple of QUAD. weights, c: `Strided`, row by row. k: a multiple of STEP.
    """
    r = 0
    while m - r >= MANY and m - r != 2 * FEW:
        _many(Matrix(a.start + r * a.row, a.row, a.column), weights, k, Strided(c.start + r * c.step, c.step), fresh)
        r += MANY
    while m - r >= FEW:
        _few(Matrix(a.start + r * a.row, a.row, a.column), weights, k, Strided(c.start + r * c.step, c.step), fresh)
        r += FEW
    while r < m:
        _quad(Matrix(a.start + r * a.row, a.row, a.column), weights, k, Strided(c.start + r * c.step, c.step), fresh)
        r += QUAD

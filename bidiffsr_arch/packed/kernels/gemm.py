"""Small dense products, the arithmetic of full-precision convolutions: C[m][n] = A[m][k] B[k][n], or a sum of such.

A tile of C stays in registers while k runs. Each step of k loads one row of B and one number of every row of A, so a
tile of r rows and v vectors needs r + v loads for r * v multiply-adds. A core loads two vectors and does two
multiply-adds a cycle, each four cycles long: r * v must be at least 8, and r + v well below r * v.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.places import Strided
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    FLOATS,
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

GROUP = 2 if WIDE else 1
"""Blocks of columns in a tile: two vectors in both instruction sets."""

MANY, FEW = (12, 8) if WIDE else (6, 4)
"""Rows of a tile. AVX2 has 16 registers: 6 x 2 sums, 2 vectors of B and 1 number of A take 15; AVX-512 has 32, and
12 x 2 + 3 take 27. `FEW` serves what is left of a multiple of 4.
"""

VECTORS = BLOCK // LANES
STEP = 2
"""Rows of B in one turn of the loop."""


class Terms(NamedTuple):
    """Products that are summed: how many, and the distances in bytes from an A and from a B to the next one."""

    number: int
    a: int
    weights: int


def gemm_tile(rows: int, blocks: int) -> Callable:
    """Function for `rows` rows of A and `blocks` blocks of columns; arguments as of `gemm`."""

    @procedure
    def gemm(b, a, weights, k, c, terms) -> None:
        columns = range(0, BLOCK * 4, BYTES)
        matrix = b.mul(k, int64(4 * BLOCK))

        def term(t, sums) -> list[Value]:
            first = offset(b, weights, b.mul(t, terms.weights))
            vectors = [
                offset(b, offset(b, first, b.mul(matrix, int64(block))), d) for block in range(blocks) for d in columns
            ]
            start = offset(b, a.start, b.mul(t, terms.a))
            numbers = [offset(b, start, b.mul(a.step, int64(r))) for r in range(rows)]

            def steps(i, sums) -> list[Value]:
                row, column = b.mul(i, int64(4 * BLOCK * STEP)), b.mul(i, int64(4 * STEP))
                for step in range(STEP):
                    factors = [load(b, offset(b, offset(b, at, row), step * 4 * BLOCK)) for at in vectors]
                    following = []
                    for r in range(rows):
                        number = load(b, offset(b, offset(b, numbers[r], column), 4 * step), FLOATS.element)
                        value, here = spread(b, number), sums[r * len(factors) : (r + 1) * len(factors)]
                        following += [multiply_add(b, value, f, total) for f, total in zip(factors, here, strict=True)]
                    sums = following
                return sums

            return repeat(b, b.sdiv(k, int64(STEP)), sums, steps)

        sums = repeat(b, terms.number, [constant(0.0)] * (rows * blocks * VECTORS), term)
        for number, value in enumerate(sums):
            r, v = divmod(number, blocks * VECTORS)
            store(b, value, offset(b, offset(b, c.start, b.mul(c.step, int64(r))), BYTES * v))

    return gemm


def gemm_columns(blocks: int) -> Callable:
    """`gemm` for `blocks` blocks of columns: tiles from the first row to the last."""
    many, few, one = (gemm_tile(rows, blocks) for rows in (MANY, FEW, 1))

    @helper
    def gemm(a, m, weights, k, c, terms) -> None:
        r = 0
        while m - r >= MANY and m - r != 2 * FEW:
            many(Strided(a.start + r * a.step, a.step), weights, k, Strided(c.start + r * c.step, c.step), terms)
            r += MANY
        while m - r >= FEW:
            few(Strided(a.start + r * a.step, a.step), weights, k, Strided(c.start + r * c.step, c.step), terms)
            r += FEW
        while r < m:
            one(Strided(a.start + r * a.step, a.step), weights, k, Strided(c.start + r * c.step, c.step), terms)
            r += 1

    return gemm


_block = gemm_columns(1)
_group = _block if GROUP == 1 else gemm_columns(GROUP)


@helper
def gemm(a, m, weights, k, blocks, c, terms) -> None:
    """``C = sum over terms of A B``, C (m, blocks * BLOCK), A (m, k), B as (blocks, k, BLOCK).

    a, c: `Strided`, row by row. weights: address. k: a multiple of `STEP`. blocks: up to `GROUP`. terms: `Terms`.
    """
    if blocks == GROUP:
        _group(a, m, weights, k, c, terms)
    else:
        _block(a, m, weights, k, c, terms)


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

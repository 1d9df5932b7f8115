"""Small dense products, the arithmetic of full-precision convolutions: C[m][n] = A[m][k] B[k][n], or a sum of such.

A tile of C stays in registers while k runs. Each step of k loads one row of B and one number of every row of A, so a
tile of r rows and v vectors needs r + v loads for r * v multiply-adds. A core loads two vectors and does two
multiply-adds a cycle, each four cycles long: r * v must be at least 8, and r + v well below r * v.
"""

from bidiffsr_arch.packed.kernels.compile import helper
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


def gemm_tile(rows: int, blocks: int):
    """Function for `rows` rows of A and `blocks` blocks of columns."""

    @procedure
    def gemm(b, a, a_row, weights, k, c, c_row, terms, a_step, weights_step):
        columns = range(0, BLOCK * 4, BYTES)
        matrix = b.mul(k, int64(4 * BLOCK))

        def term(t, sums):
            first = offset(b, weights, b.mul(t, weights_step))
            vectors = [
                offset(b, offset(b, first, b.mul(matrix, int64(block))), d) for block in range(blocks) for d in columns
            ]
            start = offset(b, a, b.mul(t, a_step))
            numbers = [offset(b, start, b.mul(a_row, int64(r))) for r in range(rows)]

            def steps(i, sums):
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

        sums = repeat(b, terms, [constant(0.0)] * (rows * blocks * VECTORS), term)
        for number, value in enumerate(sums):
            r, v = divmod(number, blocks * VECTORS)
            store(b, value, offset(b, offset(b, c, b.mul(c_row, int64(r))), BYTES * v))

    return gemm


def gemm_columns(blocks: int):
    """`gemm` for `blocks` blocks of columns: tiles from the first row to the last."""
    many, few, one = (gemm_tile(rows, blocks) for rows in (MANY, FEW, 1))

    @helper
    def gemm(a, a_row, m, weights, k, c, c_row, terms, a_step, weights_step):
        r = 0
        while m - r >= MANY and m - r != 2 * FEW:
            many(a + r * a_row, a_row, weights, k, c + r * c_row, c_row, terms, a_step, weights_step)
            r += MANY
        while m - r >= FEW:
            few(a + r * a_row, a_row, weights, k, c + r * c_row, c_row, terms, a_step, weights_step)
            r += FEW
        while r < m:
            one(a + r * a_row, a_row, weights, k, c + r * c_row, c_row, terms, a_step, weights_step)
            r += 1

    return gemm


_block = gemm_columns(1)
_group = _block if GROUP == 1 else gemm_columns(GROUP)


@helper
def gemm(a, a_row, m, weights, k, blocks, c, c_row, terms, a_step, weights_step):
    """``C = sum over t < terms of A_t B_t``, C (m, blocks * BLOCK), A_t (m, k), B_t as (blocks, k, BLOCK).

    Rows of A and C are `a_row` and `c_row` bytes apart, A_t and B_t start `a_step` and `weights_step` bytes after their
    predecessors. k: a multiple of `STEP`. blocks: up to `GROUP`.
    """
    if blocks == GROUP:
        _group(a, a_row, m, weights, k, c, c_row, terms, a_step, weights_step)
    else:
        _block(a, a_row, m, weights, k, c, c_row, terms, a_step, weights_step)


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

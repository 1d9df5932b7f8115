"""Small matrix products for full-precision convolutions: C[m][n] = A[m][k] B[k][n], or a sum of such products.

A tile of C stays in registers during the loop over k. Each iteration loads one row of B and one number of every row of
A, so a tile of r rows and v vectors needs r + v loads for r * v multiply-adds. A core can start two loads and two
multiply-adds per cycle, and a multiply-add takes four cycles. Therefore r * v must be at least 8, and r + v well below
r * v.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.places import Strided
from bidiffsr_arch.packed.kernels.prefetch import LINE
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    FLOATS,
    LANES,
    WIDE,
    constant,
    fetch,
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
12 x 2 + 3 take 27. Tiles of `FEW` rows cover the rest of a multiple of 4.
"""

VECTORS = BLOCK // LANES
STEP = 2
"""Rows of B per iteration of the loop."""

CHUNK = BLOCK
"""Rows of B between two prefetches. Around a prefetch within the loop, LLVM would move loads and spill registers."""

LINES = 3
"""Cache lines of each map that are prefetched at once: a CPU has about 12 outstanding loads."""


class Terms(NamedTuple):
    """Products that are summed: their number, and the distances in bytes between the As and between the Bs."""

    number: int
    a: int
    weights: int


ONE_TERM = Terms(1, 0, 0)


class PrefetchStreams(NamedTuple):
    """What to prefetch from memory while products are computed from the caches: three maps, each with the address of
    the next line and the bytes that it advances per chunk of B.

    A CPU supports few outstanding loads, so prefetches are spread over the products and delay no multiply-add.
    """

    source: int
    source_step: int
    shortcut: int
    shortcut_step: int
    out: int
    out_step: int


@helper
def advanced(upcoming, chunks) -> PrefetchStreams:
    """`upcoming` after `chunks` chunks."""
    return PrefetchStreams(
        upcoming.source + chunks * upcoming.source_step,
        upcoming.source_step,
        upcoming.shortcut + chunks * upcoming.shortcut_step,
        upcoming.shortcut_step,
        upcoming.out + chunks * upcoming.out_step,
        upcoming.out_step,
    )


@helper
def _from(rows, r) -> Strided:
    """The rows from number r on."""
    return Strided(rows.start + r * rows.step, rows.step)


def _fetch_lines(b, start, *, write: bool = False) -> None:
    for line in range(LINES):
        fetch(b, offset(b, start, line * LINE), write=write)


def gemm_tile(rows: int, blocks: int) -> Callable:
    """The function for `rows` rows of A and `blocks` blocks of columns; arguments as of `gemm`."""

    @procedure
    def gemm(b, a, weights, k, c, terms, upcoming) -> None:
        columns = range(0, BLOCK * 4, BYTES)
        chunks = b.sdiv(k, int64(CHUNK))
        turns = b.sdiv(k, b.mul(chunks, int64(STEP)))  # not a constant, or LLVM would unroll the loop

        def term(t, sums) -> list[Value]:
            first = offset(b, weights.start, b.mul(t, terms.weights))
            vectors = [
                offset(b, offset(b, first, b.mul(weights.step, int64(block))), d)
                for block in range(blocks)
                for d in columns
            ]
            start = offset(b, a.start, b.mul(t, terms.a))
            numbers = [offset(b, start, b.mul(a.step, int64(r))) for r in range(rows)]
            before = b.mul(t, chunks)

            def chunk(n, sums) -> list[Value]:
                here = b.add(before, n)
                for start, step in (upcoming[:2], upcoming[2:4]):
                    _fetch_lines(b, offset(b, start, b.mul(here, step)))
                _fetch_lines(b, offset(b, upcoming.out, b.mul(here, upcoming.out_step)), write=True)
                first = b.mul(n, turns)

                def turn(i, sums) -> list[Value]:
                    i = b.add(first, i)
                    row, column = b.mul(i, int64(4 * BLOCK * STEP)), b.mul(i, int64(4 * STEP))
                    for step in range(STEP):
                        factors = [load(b, offset(b, offset(b, at, row), step * 4 * BLOCK)) for at in vectors]
                        following = []
                        for r in range(rows):
                            number = load(b, offset(b, offset(b, numbers[r], column), 4 * step), FLOATS.element)
                            value, these = spread(b, number), sums[r * len(factors) : (r + 1) * len(factors)]
                            pairs = zip(factors, these, strict=True)
                            following += [multiply_add(b, value, factor, total) for factor, total in pairs]
                        sums = following
                    return sums

                return repeat(b, turns, sums, turn)

            return repeat(b, chunks, sums, chunk)

        sums = repeat(b, terms.number, [constant(0.0)] * (rows * blocks * VECTORS), term)
        for number, value in enumerate(sums):
            r, v = divmod(number, blocks * VECTORS)
            store(b, value, offset(b, offset(b, c.start, b.mul(c.step, int64(r))), BYTES * v))

    return gemm


def gemm_columns(blocks: int) -> Callable:
    """`gemm` for `blocks` blocks of columns: tiles from the first row to the last."""
    many, few, one = (gemm_tile(rows, blocks) for rows in (MANY, FEW, 1))

    @helper
    def gemm(a, m, weights, k, c, terms, upcoming) -> None:
        r, chunks = 0, terms.number * k // CHUNK
        while m - r >= MANY and m - r != 2 * FEW:
            many(_from(a, r), weights, k, _from(c, r), terms, upcoming)
            upcoming = advanced(upcoming, chunks)
            r += MANY
        while m - r >= FEW:
            few(_from(a, r), weights, k, _from(c, r), terms, upcoming)
            upcoming = advanced(upcoming, chunks)
            r += FEW
        while r < m:
            one(_from(a, r), weights, k, _from(c, r), terms, upcoming)
            upcoming = advanced(upcoming, chunks)
            r += 1

    return gemm


_block = gemm_columns(1)
_group = _block if GROUP == 1 else gemm_columns(GROUP)


@helper
def gemm(a, m, weights, k, blocks, c, terms, upcoming) -> None:
    """``C = sum over terms of A B``, C (m, blocks * BLOCK), A (m, k), B (k, BLOCK) for each block.

    a, c: `Strided`, row by row. weights: `Strided`, block by block. k: a multiple of `CHUNK`. blocks: up to `GROUP`.
    terms: `Terms`. upcoming: `PrefetchStreams`; each tile of rows has ``terms.number * k / CHUNK`` chunks.
    """
    if blocks == GROUP:
        _group(a, m, weights, k, c, terms, upcoming)
    else:
        _block(a, m, weights, k, c, terms, upcoming)


def finish_columns(blocks: int) -> Callable:
    """`finish_run` for `blocks` blocks of columns."""

    @procedure
    def finish(b, pixels, acc, add, shortcut, shortcut_block, out, sums) -> None:
        places = [(i, d) for i in range(blocks) for d in range(0, 4 * BLOCK, BYTES)]
        extras = [load(b, offset(b, add, i * 4 * BLOCK + d)) for i, d in places]

        def pixel(i, carried) -> list[Value]:
            following = []
            for v, (block, d) in enumerate(places):
                inside = block * 4 * BLOCK + d
                value = b.fadd(load(b, offset(b, offset(b, acc.start, inside), b.mul(i, acc.step))), extras[v])
                start = offset(b, offset(b, shortcut.start, b.mul(shortcut_block, int64(block))), d)
                value = b.fadd(value, load(b, offset(b, start, b.mul(i, shortcut.step))))
                store(b, value, offset(b, offset(b, out.start, inside), b.mul(i, out.step)))
                following += [b.fadd(carried[2 * v], value), multiply_add(b, value, value, carried[2 * v + 1])]
            return following

        where = [offset(b, start, i * 4 * BLOCK + d) for i, d in places for start in sums]
        for address, value in zip(where, repeat(b, pixels, [load(b, a) for a in where], pixel), strict=True):
            store(b, value, address)

    return finish


_finish_block = finish_columns(1)
_finish_group = _finish_block if GROUP == 1 else finish_columns(GROUP)


@helper
def finish_run(pixels, blocks, acc, add, shortcut, shortcut_block, out, sums) -> None:
    """``out = acc + add + shortcut``, and the sums of out, for up to `GROUP` blocks of channels of a run of pixels.

    acc, shortcut, out: `Strided`. add: address. shortcut_block: bytes from a block of the shortcut to the next. The
    sums of out are added to sums (`Sums`).
    """
    if blocks == GROUP:
        _finish_group(pixels, acc, add, shortcut, shortcut_block, out, sums)
    else:
        _finish_block(pixels, acc, add, shortcut, shortcut_block, out, sums)

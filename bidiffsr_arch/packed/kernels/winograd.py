"""Full-precision 3x3 convolution by Winograd's F(4x4, 3x3): 36 multiplications for 16 results, where the definition
takes 144.

``Y = A^T [(G g G^T) * (B^T d B)] A`` for tiles d of 6x6 inputs that overlap by 2 (Lavin & Gray 2016, with the points 0,
±1, ±2 and infinity). The sum over input channels turns the element-wise product into 36 matrix products.
"""

from typing import NamedTuple

import numpy as np
from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.gemm import GROUP, Terms, finish_run, gemm
from bidiffsr_arch.packed.kernels.places import Grid, Strided, Sums
from bidiffsr_arch.packed.kernels.prefetch import LINE, Prefetch, prefetch
from bidiffsr_arch.packed.kernels.signs import norm_swish_vector
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    LANES,
    WIDE,
    address,
    clear,
    constant,
    copy,
    int64,
    load,
    multiply_add,
    offset,
    procedure,
    store,
)
from bidiffsr_arch.packed.layout import BLOCK, aligned_copy, padded

BLOCK_BYTES = 4 * BLOCK

TILES = 32 if WIDE else 16
"""Tiles whose 36 products are formed together, the width of a strip. More of them share a load of the weights, which at
128 channels come from the third cache; fewer leave a strip's rows, inputs and products in the second one: 0.4 MB at 64
channels with 16 tiles. AVX-512 takes half the cycles for a product, and so wants weights half as often.
"""

POINTS = 36
ROW_PAD = 64
"""Bytes after each of the 36 matrices, so that they do not all fall on the same cache set."""

G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def winograd_weights(weight: np.ndarray) -> np.ndarray:
    """``G g G^T`` of a weight (C_out, C_in, 3, 3), in float64, as float32 (36, C_out / BLOCK, C_in, BLOCK), channels
    padded.
    """
    filters, channels = weight.shape[:2]
    full = np.zeros((padded(filters), padded(channels), 3, 3))
    full[:filters, :channels] = weight
    points = np.einsum("ai,ocij,bj->abco", G, full, G).reshape(POINTS, padded(channels), -1, BLOCK)
    return aligned_copy(points.transpose(0, 2, 1, 3).astype(np.float32))


def _input_line(b, d: list) -> list:
    """``B^T d`` of six vectors."""
    minus4, even = constant(-4.0), constant(4.0)
    a = multiply_add(b, d[2], minus4, d[4])
    c = multiply_add(b, d[1], minus4, d[3])
    e = b.fsub(d[4], d[2])
    f = b.fmul(b.fsub(d[3], d[1]), constant(2.0))
    return [
        multiply_add(b, d[0], even, multiply_add(b, d[2], constant(-5.0), d[4])),
        b.fadd(a, c),
        b.fsub(a, c),
        b.fadd(e, f),
        b.fsub(e, f),
        multiply_add(b, d[1], even, multiply_add(b, d[3], constant(-5.0), d[5])),
    ]


def _output_line(b, m: list) -> list:
    """``A^T m`` of six vectors."""
    s1, d1 = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    s2, d2 = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], s1), s2),
        multiply_add(b, d2, constant(2.0), d1),
        multiply_add(b, s2, constant(4.0), s1),
        b.fadd(multiply_add(b, d2, constant(8.0), d1), m[5]),
    ]


def _pixel(b, grid: Grid, y: int, x: int) -> Value:
    """Address of a pixel of a grid."""
    return offset(b, offset(b, grid.start, b.mul(grid.row, int64(y))), b.mul(grid.pixel, int64(x)))


def _point(b, points: Strided, r: int, q: int) -> Value:
    """Address of point (r, q) of the 6x6 of a transformed tile."""
    return offset(b, points.start, b.mul(points.step, int64(6 * r + q)))


@procedure
def _input_tile(b, x, points) -> None:
    """``B^T d B`` of a 6x6 tile of LANES channels. x: `Grid`. points: `Strided`, to which 36 vectors are written."""
    columns = [_input_line(b, [load(b, _pixel(b, x, r, q)) for r in range(6)]) for q in range(6)]
    for r in range(6):
        for q, value in enumerate(_input_line(b, [columns[q][r] for q in range(6)])):
            store(b, value, _point(b, points, r, q))


@procedure
def _output_tile(b, points, add, shortcut, out, sums) -> None:
    """``out = A^T m A + add + shortcut`` for a 4x4 tile of LANES channels, and the sums of out.

    points: `Strided`, the 36 vectors m. add: address. shortcut, out: `Grid`. sums: `Sums`, to which is added.
    """
    columns = [_output_line(b, [load(b, _point(b, points, r, q)) for r in range(6)]) for q in range(6)]
    extra, total, square = load(b, add), load(b, sums.values), load(b, sums.squares)
    for r in range(4):
        for x, value in enumerate(_output_line(b, [columns[q][r] for q in range(6)])):
            value = b.fadd(b.fadd(value, extra), load(b, _pixel(b, shortcut, r, x)))
            store(b, value, _pixel(b, out, r, x))
            total, square = b.fadd(total, value), multiply_add(b, value, value, square)
    store(b, total, sums.values)
    store(b, square, sums.squares)


@helper
def _normalised_row(x, pixel, gain, bias, line, width) -> None:
    """line = swish(gain * x + bias) of a row of `width` pixels of `pixel` bytes."""
    for i in range(0, width * pixel, pixel):
        for d in range(0, pixel, BYTES):
            norm_swish_vector(x + i + d, gain + d, bias + d, line + i + d)


class Scratch(NamedTuple):
    """A thread's scratch memory: addresses of a strip's six input rows, of its transformed inputs, of its products, and
    of one tile's results; `end` is the first byte after it.
    """

    rows: int
    inputs: int
    products: int
    tile: int
    end: int


def scratch_from(start: int, width: int, channels: int, filters: int) -> Scratch:
    """A thread's scratch memory from an address on, a multiple of 64."""
    columns = 4 * min(TILES, (width + 3) // 4) + 2
    inputs = start + 6 * columns * channels * 4
    products = inputs + POINTS * (TILES * channels * 4 + ROW_PAD)
    tile = products + POINTS * (TILES * filters * 4 + ROW_PAD)
    end = tile + (16 + 3) * BLOCK * 4
    return Scratch(start, inputs, products, tile, (end + 63) // 64 * 64)


_scratch_from = helper(scratch_from)


@helper
def _store_tile(points, add, shortcut, target, tile, ty, tx, size) -> None:
    """Results of one tile, all channels; a tile that extends beyond the border goes through 4x4 pixels of scratch.

    points: `Strided`, from the tile's first channel on. tile: address of the scratch.
    """
    height, width = size
    rows, across = min(4, height - 4 * ty), min(4, width - 4 * tx)
    sums = address(target.sums) + ty * 2 * target.sums.shape[2] * 4
    squares = target.sums.shape[2] * 4
    out = address(target.map) + 4 * ty * target.row + 4 * tx * target.pixel
    s = address(shortcut.map) + shortcut.first + 4 * ty * shortcut.row + 4 * tx * shortcut.pixel
    extra = address(add)
    if rows == 4 and across == 4:
        per_block = BLOCK // LANES
        for k in range(target.blocks.size * per_block):
            block, d = k // per_block, k % per_block * BYTES
            c = sums + target.channels[block] * 4 + d
            _output_tile(
                Strided(points.start + k * BYTES, points.step),
                extra + k * BYTES,
                Grid(s + block * shortcut.block + d, shortcut.row, shortcut.pixel),
                Grid(out + target.blocks[block] + d, target.row, target.pixel),
                Sums(c, c + squares),
            )
        return
    zeros = tile + 16 * BLOCK_BYTES
    clear(zeros, 3 * BLOCK_BYTES)
    for block in range(target.blocks.size):
        for d in range(0, BLOCK_BYTES, BYTES):
            _output_tile(
                Strided(points.start + block * BLOCK_BYTES + d, points.step),
                zeros,
                Grid(zeros, 0, 0),
                Grid(tile + d, 4 * BLOCK_BYTES, BLOCK_BYTES),
                Sums(zeros + BLOCK_BYTES, zeros + 2 * BLOCK_BYTES),
            )
        c = sums + target.channels[block] * 4
        for r in range(rows):
            finish_run(
                across,
                Strided(tile + r * 4 * BLOCK_BYTES, BLOCK_BYTES),
                extra + block * BLOCK_BYTES,
                Strided(s + block * shortcut.block + r * shortcut.row, shortcut.pixel),
                Strided(out + target.blocks[block] + r * target.row, target.pixel),
                Sums(c, c + squares),
            )


@helper
def _prefetch_part(x, s, target, ty, tx, tiles, point, part, parts) -> None:
    """While products of point `point` are formed, prefetch a part of what comes: the rows of x that the next row of
    tiles adds, and these tiles' shortcut and results. Four points share a row.
    """
    height, width, channels = x.shape
    row, number, count = point % 4, point // 4 * parts + part, POINTS // 4 * parts
    lines = min(4 * tiles, width - 4 * tx) * channels * 4 // LINE
    first, last = lines * number // count, lines * (number + GROUP) // count
    y, coming = min(4 * ty + row, height - 1), min(4 * ty + 5 + row, height - 1)
    has_shortcut = s.pixel > 0
    prefetch(
        Prefetch(
            address(x) + (coming * width + 4 * tx) * channels * 4,
            address(s.map) + y * s.row + 4 * tx * s.pixel,
            has_shortcut * LINE,
            address(target.map) + y * target.row + 4 * tx * target.pixel,
        ),
        first,
        last - first,
    )


@helper
def _input_rows(x, normalise, gain, bias, ty, kept, tx, tiles, rows) -> None:
    """The six rows of x under row `ty` of tiles, columns under tiles tx to tx + tiles - 1, each row one pixel wider on
    both sides; zeros outside of the image. The first `kept` are moved there, from the last rows of the tiles above.

    rows: `Strided`.
    """
    height, width, channels = x.shape
    pixel = channels * 4
    left, right = max(4 * tx - 1, 0), min(4 * (tx + tiles) + 1, width)
    before, inside, after = left - (4 * tx - 1), right - left, 4 * (tx + tiles) + 1 - right
    copy(rows.start, rows.start + 4 * rows.step, kept * rows.step)
    for r in range(kept, 6):
        y, start = 4 * ty - 1 + r, rows.start + r * rows.step
        if y < 0 or y >= height:
            clear(start, rows.step)
            continue
        inner, source = start + before * pixel, address(x) + (y * width + left) * pixel
        clear(start, before * pixel)
        if normalise:
            _normalised_row(source, pixel, address(gain), address(bias), inner, inside)
        else:
            copy(inner, source, inside * pixel)
        clear(inner + inside * pixel, after * pixel)


@helper
def _products(x, weights, shortcut, target, ty, tx, tiles, inputs, products) -> None:
    """The 36 products of a strip's row of tiles. inputs, products: `Strided`, matrix by matrix."""
    channels, blocks = x.shape[2], weights.shape[1]
    for p in range(POINTS):
        for block in range(0, blocks, GROUP):
            _prefetch_part(x, shortcut, target, ty, tx, tiles, p, block, blocks)
            gemm(
                Strided(inputs.start + p * inputs.step, channels * 4),
                tiles,
                address(weights) + (p * blocks + block) * channels * BLOCK_BYTES,
                channels,
                min(GROUP, blocks - block),
                Strided(products.start + p * products.step + block * BLOCK_BYTES, blocks * BLOCK_BYTES),
                Terms(1, 0, 0),
            )


@helper
def _rows_of_tiles(part, first, last, x, normalise, gain, bias, weights, add, shortcut, target, scratch) -> None:
    """Rows first to last - 1 of tiles."""
    height, width, channels = x.shape
    filters, pixel = weights.shape[1] * BLOCK, channels * 4
    tiles_across = (width + 3) // 4
    strips = (tiles_across + TILES - 1) // TILES
    sums_row = 2 * target.sums.shape[2] * 4
    own = _scratch_from(address(scratch) + part * scratch.shape[1], width, channels, filters)
    inputs = Strided(own.inputs, TILES * pixel + ROW_PAD)
    products = Strided(own.products, TILES * filters * 4 + ROW_PAD)
    clear(address(target.sums) + first * sums_row, (last - first) * sums_row)
    for strip in range(strips):
        tx, end = strip * tiles_across // strips, (strip + 1) * tiles_across // strips
        tiles = end - tx
        rows = Strided(own.rows, (4 * tiles + 2) * pixel)
        for ty in range(first, last):
            _input_rows(x, normalise, gain, bias, ty, 2 if ty > first else 0, tx, tiles, rows)
            for t in range(tiles):
                for d in range(0, pixel, BYTES):
                    grid = Grid(own.rows + t * 4 * pixel + d, rows.step, pixel)
                    _input_tile(grid, Strided(own.inputs + t * pixel + d, inputs.step))
            _products(x, weights, shortcut, target, ty, tx, tiles, inputs, products)
            for t in range(tiles):
                points = Strided(own.products + t * filters * 4, products.step)
                _store_tile(points, add, shortcut, target, own.tile, ty, tx + t, (height, width))


@kernel
def winograd(x, normalise, gain, bias, weights, add, shortcut, target, scratch) -> None:
    """Convolution of a map (H, W, C), or of swish(gain * x + bias) of it, plus `add` per channel and a map.

    weights: of `winograd_weights`. shortcut: `binary_conv.Shortcut`. target: `binary_conv.Target`, with one row of sums
        for four rows of the image. scratch: uint8 (threads, bytes), see `scratch_from`.
    Error: about 2e-5 for maps and results of order 1, against 3e-6 of the definition in float32.
    """
    tile_rows = (len(x) + 3) // 4
    arguments = x, normalise, gain, bias, weights, add, shortcut, target, scratch
    split(tile_rows, _rows_of_tiles, arguments)

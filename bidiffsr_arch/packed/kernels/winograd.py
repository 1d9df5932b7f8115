"""Full-precision 3x3 convolution by Winograd's F(4x4, 3x3): 36 multiplications for 16 results, where the definition
takes 144.

``Y = A^T [(G g G^T) * (B^T d B)] A`` for tiles d of 6x6 inputs that overlap by 2 (Lavin & Gray 2016, with the points 0,
±1, ±2 and infinity). The sum over input channels turns the element-wise product into 36 matrix products.
"""

import numpy as np
from numba import prange

from bidiffsr_arch.packed.kernels.ahead import LINE, Ahead, fetch_ahead
from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.gemm import GROUP, finish_run, gemm
from bidiffsr_arch.packed.kernels.signs import norm_swish_vector
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    LANES,
    WIDE,
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


@procedure
def _input_tile(b, x, row, pixel, v, point):
    """``B^T d B`` of a 6x6 tile of LANES channels, to 36 places `point` bytes apart."""
    columns = []
    for q in range(6):
        column = offset(b, x, b.mul(pixel, int64(q)))
        columns.append(_input_line(b, [load(b, offset(b, column, b.mul(row, int64(r)))) for r in range(6)]))
    for r in range(6):
        for q, value in enumerate(_input_line(b, [columns[q][r] for q in range(6)])):
            store(b, value, offset(b, v, b.mul(point, int64(6 * r + q))))


@procedure
def _output_tile(b, m, point, add, s, s_row, s_pixel, out, out_row, out_pixel, sums, squares):
    """``A^T m A`` + add + s to a 4x4 tile of LANES channels; sums += out, squares += out^2."""
    columns = [
        _output_line(b, [load(b, offset(b, m, b.mul(point, int64(6 * r + q)))) for r in range(6)]) for q in range(6)
    ]
    extra, total, square = load(b, add), load(b, sums), load(b, squares)
    for r in range(4):
        for x, value in enumerate(_output_line(b, [columns[q][r] for q in range(6)])):
            place = offset(b, offset(b, s, b.mul(s_row, int64(r))), b.mul(s_pixel, int64(x)))
            value = b.fadd(b.fadd(value, extra), load(b, place))
            store(b, value, offset(b, offset(b, out, b.mul(out_row, int64(r))), b.mul(out_pixel, int64(x))))
            total, square = b.fadd(total, value), multiply_add(b, value, value, square)
    store(b, total, sums)
    store(b, square, squares)


@helper
def _normalised_row(x, pixel, gain, bias, line, width):
    """line = swish(gain * x + bias) of a row of `width` pixels of `pixel` bytes."""
    for i in range(0, width * pixel, pixel):
        for d in range(0, pixel, BYTES):
            norm_swish_vector(x + i + d, gain + d, bias + d, line + i + d)


def chunk_bytes(width: int, channels: int, filters: int) -> tuple[int, int, int]:
    """Bytes of a thread's scratch: ends of a strip's six input rows, of its transformed inputs, of its products."""
    rows = 6 * (4 * min(TILES, (width + 3) // 4) + 2) * channels * 4
    inputs = rows + POINTS * (TILES * channels * 4 + ROW_PAD)
    products = inputs + POINTS * (TILES * filters * 4 + ROW_PAD) + (16 + 3) * BLOCK * 4
    return rows, inputs, (products + 63) // 64 * 64


_chunk_bytes = helper(chunk_bytes)


@helper
def _input_rows(x, normalise, gain, bias, ty, kept, tx, tiles, rows, line):
    """The six rows of x under row `ty` of tiles, columns under tiles tx..tx + tiles - 1, each one pixel wider on both
    sides; zeros outside of the map. The first `kept` are there, as the last rows of the tiles above.
    """
    height, width, channels = x.shape
    pixel = channels * 4
    left, right = max(4 * tx - 1, 0), min(4 * (tx + tiles) + 1, width)
    before, after = left - (4 * tx - 1), 4 * (tx + tiles) + 1 - right
    copy(rows, rows + 4 * line, kept * line)
    for r in range(kept, 6):
        y, start = 4 * ty - 1 + r, rows + r * line
        if y < 0 or y >= height:
            clear(start, line)
            continue
        clear(start, before * pixel)
        inner = start + before * pixel
        source = np.int64(x.ctypes.data) + (y * width + left) * pixel
        if normalise:
            _normalised_row(
                source, pixel, np.int64(gain.ctypes.data), np.int64(bias.ctypes.data), inner, right - left
            )
        else:
            copy(inner, source, (right - left) * pixel)
        clear(inner + (right - left) * pixel, after * pixel)


@helper
def _products(x, weights, s, target, ty, tx, tiles, inputs, in_point, products, out_point):
    """The 36 products of a strip's row of tiles."""
    channels, blocks = x.shape[2], weights.shape[1]
    for p in range(POINTS):
        for block in range(0, blocks, GROUP):
            _fetch_part(x, s, target, ty, tx, tiles, p, block, blocks)
            gemm(
                inputs + p * in_point,
                channels * 4,
                tiles,
                np.int64(weights.ctypes.data) + (p * blocks + block) * channels * 4 * BLOCK,
                channels,
                min(GROUP, blocks - block),
                products + p * out_point + block * 4 * BLOCK,
                blocks * BLOCK * 4,
                1,
                0,
                0,
            )


@helper
def _store_tile(m, point, filters, add, s, target, spare, ty, tx, height, width):
    """Results of one tile, all channels; a tile that hangs over the border goes through 4x4 pixels of spare room."""
    rows, across = min(4, height - 4 * ty), min(4, width - 4 * tx)
    sums = np.int64(target.sums.ctypes.data) + ty * 2 * target.sums.shape[2] * 4
    squares = sums + target.sums.shape[2] * 4
    out = np.int64(target.map.ctypes.data) + 4 * ty * target.row + 4 * tx * target.pixel
    shortcut = np.int64(s.map.ctypes.data) + s.first + 4 * ty * s.row + 4 * tx * s.pixel
    extra = np.int64(add.ctypes.data)
    per_block = BLOCK // LANES
    if rows == 4 and across == 4:
        for k in range(filters // LANES):
            block, d = k // per_block, k % per_block * BYTES
            c = target.channels[block] * 4 + d
            _output_tile(
                m + k * BYTES,
                point,
                extra + k * BYTES,
                shortcut + block * s.block + d,
                s.row,
                s.pixel,
                out + target.blocks[block] + d,
                target.row,
                target.pixel,
                sums + c,
                squares + c,
            )
        return
    z = spare + 16 * 4 * BLOCK
    clear(z, 3 * 4 * BLOCK)
    for block in range(filters // BLOCK):
        for d in range(0, BLOCK * 4, BYTES):
            _output_tile(
                m + block * BLOCK * 4 + d, point, z, z, 0, 0, spare + d, 16 * BLOCK, 4 * BLOCK, z + 64, z + 128
            )
        c = target.channels[block] * 4
        for r in range(rows):
            finish_run(
                across,
                spare + r * 16 * BLOCK,
                4 * BLOCK,
                extra + block * BLOCK * 4,
                shortcut + block * s.block + r * s.row,
                s.pixel,
                out + target.blocks[block] + r * target.row,
                target.pixel,
                sums + c,
                squares + c,
            )


@helper
def _fetch_part(x, s, target, ty, tx, tiles, point, part, parts):
    """While products of point `point` are formed, ask for a part of what comes: the rows of x that the next row of
    tiles adds, and these tiles' shortcut and results. Four points share a part of a row each.
    """
    height, width, channels = x.shape
    row, q = point % 4, point // 4 * parts + part
    lines = min(4 * tiles, width - 4 * tx) * channels * 4 // LINE
    first, last = lines * q // (POINTS // 4 * parts), lines * (q + GROUP) // (POINTS // 4 * parts)
    y, coming = min(4 * ty + row, height - 1), min(4 * ty + 5 + row, height - 1)
    has_shortcut = s.pixel > 0
    fetch_ahead(
        Ahead(
            np.int64(x.ctypes.data) + (coming * width + 4 * tx) * channels * 4,
            np.int64(s.map.ctypes.data) + y * s.row + 4 * tx * s.pixel,
            has_shortcut * LINE,
            np.int64(target.map.ctypes.data) + y * target.row + 4 * tx * target.pixel,
        ),
        first,
        last - first,
    )


@kernel
def winograd(x, normalise, gain, bias, weights, add, s, target, scratch):
    """Convolution of a map (H, W, C), or of swish(gain * x + bias) of it, plus `add` a channel and the map s
    (`binary_conv.Shortcut`).

    weights: of `winograd_weights`. target: `binary_conv.Target`, with one row of sums for four rows of the picture.
        scratch: uint8 (threads, bytes).
    Error: about 2e-5 for maps and results of order 1, against 3e-6 of the definition in float32.
    """
    height, width, channels = x.shape
    filters = weights.shape[1] * BLOCK
    tile_rows, tiles_across = (height + 3) // 4, (width + 3) // 4
    strips = (tiles_across + TILES - 1) // TILES
    pixel = channels * 4
    rows_end, inputs_end, _ = _chunk_bytes(width, channels, filters)
    in_point, out_point = TILES * channels * 4 + ROW_PAD, TILES * filters * 4 + ROW_PAD
    sums_row = 2 * target.sums.shape[2] * 4
    chunks = min(scratch.shape[0], tile_rows)
    for chunk in prange(chunks):
        rows = np.int64(scratch.ctypes.data) + chunk * scratch.shape[1]
        inputs, products = rows + rows_end, rows + inputs_end
        spare = products + POINTS * out_point
        first, last = chunk * tile_rows // chunks, (chunk + 1) * tile_rows // chunks
        clear(np.int64(target.sums.ctypes.data) + first * sums_row, (last - first) * sums_row)
        for strip in range(strips):
            tx, end = strip * tiles_across // strips, (strip + 1) * tiles_across // strips
            tiles = end - tx
            line = (4 * tiles + 2) * pixel
            for ty in range(first, last):
                _input_rows(x, normalise, gain, bias, ty, 2 if ty > first else 0, tx, tiles, rows, line)
                for t in range(tiles):
                    for d in range(0, pixel, BYTES):
                        _input_tile(rows + t * 4 * pixel + d, line, pixel, inputs + t * pixel + d, in_point)
                _products(x, weights, s, target, ty, tx, tiles, inputs, in_point, products, out_point)
                for t in range(tiles):
                    m = products + t * filters * 4
                    _store_tile(m, out_point, filters, add, s, target, spare, ty, tx + t, height, width)

"""Full-precision 3x3 convolution by Winograd's F(4x4, 3x3): 36 multiplications for 16 results, where direct convolution
needs 144.

``Y = A^T [(G g G^T) * (B^T d B)] A`` for tiles d of 6x6 inputs that overlap by 2. The sum over input channels turns the
element-wise product into 36 matrix products. Columns are transformed once for all tiles of a row that share them. Rows
of the 6x6 points then pass two at a time through the row transform, the products and the transform back, so that
intermediate values stay in the caches.
"""

from typing import NamedTuple

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.gemm import CHUNK, GROUP, MANY, ONE_TERM, PrefetchStreams, advanced, finish_run, gemm
from bidiffsr_arch.packed.kernels.places import Grid, Strided, Sums
from bidiffsr_arch.packed.kernels.signs import norm_swish_vector
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, WIDE, address, clear, copy
from bidiffsr_arch.packed.kernels.winograd_transforms import (
    EACH,
    PASSES,
    POINTS,
    first_pass,
    norm_swish_columns,
    plain_columns,
    second_pass,
    third_pass,
    transform_row,
)
from bidiffsr_arch.packed.layout import BLOCK

BLOCK_BYTES = 4 * BLOCK

TILES = 32 if WIDE else 16
"""Tiles whose products are computed together, the width of a strip; a multiple of 4. More tiles share each load of the
weights, which come from the L3 cache at 128 channels. Fewer tiles keep intermediate values in the L2 cache: 0.3 MB at
64 channels with 16 tiles. AVX-512 computes a product in half the cycles, so each load of weights serves twice as many.
"""

PAD = 64
"""Bytes after each matrix and each row, so that they do not all fall on the same cache set."""


class Scratch(NamedTuple):
    """A thread's scratch memory: addresses of the two rows that a strip stores for the next one, of its six rows of
    transformed columns, of a pass's inputs and products, and of the results; `end` is the first byte after it.
    """

    kept: int
    columns: int
    inputs: int
    products: int
    results: int
    end: int


def scratch_from(start: int, width: int, channels: int, filters: int) -> Scratch:
    """A thread's scratch memory, which begins at address `start`, a multiple of 64."""
    tiles = min(TILES, (width + 3) // 4)
    row = (4 * tiles + 2) * channels * 4 + PAD
    columns = start + 2 * row
    inputs = columns + 6 * row
    products = inputs + EACH * (tiles * channels * 4 + PAD)
    results = products + EACH * (tiles * GROUP * BLOCK * 4 + PAD)
    return Scratch(start, columns, inputs, products, results, results + 4 * (4 * tiles * filters * 4 + PAD))


_scratch_from = helper(scratch_from)


class Strip(NamedTuple):
    """Tiles `tx` to ``tx + tiles`` of row `ty` of tiles."""

    ty: int
    tx: int
    tiles: int


@helper
def _first_kept_rows(x, normalise, gain, bias, y, place, width, kept) -> None:
    """Store rows y and y + 1 of x, or of swish(gain * x + bias), for a strip that has none above it which stored them;
    zeros outside of the image.

    place: byte of a row of x from which on `width` bytes are copied. kept: `Strided`.
    """
    height, row, pixel = x.shape[0], x.shape[1] * x.shape[2] * 4, x.shape[2] * 4
    for r in range(2):
        line, source = kept.start + r * kept.step, address(x) + (y + r) * row + place
        if y + r < 0 or y + r >= height:
            clear(line, width)
        elif normalise:
            for i in range(0, width, pixel):
                for d in range(0, pixel, BYTES):
                    norm_swish_vector(source + i + d, address(gain) + d, address(bias) + d, line + i + d)
        else:
            copy(line, source, width)


@helper
def _transformed_columns(x, normalise, gain, bias, strip, fresh, kept, columns) -> None:
    """Transform the columns of the six rows under a strip, one pixel wider on both sides; zeros outside of the image.

    fresh: whether no strip above has stored two rows. kept, columns: `Strided`.
    """
    height, width, channels = x.shape
    pixel = channels * 4
    begin, end = 4 * strip.tx - 1, 4 * (strip.tx + strip.tiles) + 1
    left, right = max(begin, 0), min(end, width)
    skip, size, y = (left - begin) * pixel, (right - left) * pixel, 4 * strip.ty - 1
    if fresh:
        kept_inside = Strided(kept.start + skip, kept.step)
        _first_kept_rows(x, normalise, gain, bias, y, left * pixel, size, kept_inside)
    for r in range(6):
        clear(columns.start + r * columns.step, skip)
        clear(columns.start + r * columns.step + skip + size, (end - right) * pixel)
    inside, source = min(4, height - 2 - y), address(x) + ((y + 2) * width + left) * pixel
    for i in range(0, size, pixel):
        for d in range(0, pixel, BYTES):
            new, place = Strided(source + i + d, width * pixel), skip + i + d
            before, points = Strided(kept.start + place, kept.step), Strided(columns.start + place, columns.step)
            if normalise:
                norm_swish_columns(new, inside, address(gain) + d, address(bias) + d, before, points)
            else:
                plain_columns(new, inside, 0, 0, before, points)


@helper
def _transformed_rows(columns, rows, tiles, pixel, inputs) -> None:
    """Transform two rows of columns of all tiles into a pass's inputs. columns, inputs: `Strided`. pixel: its bytes."""
    for r in range(2):
        line, matrix = columns.start + rows[r] * columns.step, inputs.start + 6 * r * inputs.step
        for t in range(tiles):
            for d in range(0, pixel, BYTES):
                transform_row(Strided(line + 4 * t * pixel + d, pixel), Strided(matrix + t * pixel + d, inputs.step))


@helper
def _prefetch(x, s, target, strip, row, chunks) -> PrefetchStreams:
    """What to prefetch during `chunks` chunks: a row of x that the strip below needs, and a row of this strip's
    shortcut and results.
    """
    height, width, channels = x.shape
    y, coming = min(4 * strip.ty + row, height - 1), min(4 * strip.ty + 5 + row, height - 1)
    first, pixels, pixel = 4 * strip.tx, min(4 * strip.tiles, width - 4 * strip.tx), channels * 4
    return PrefetchStreams(
        address(x) + (coming * width + first) * pixel,
        (pixels * pixel + chunks - 1) // chunks,
        address(s.map) + s.first + y * s.row + first * s.pixel,
        (pixels * s.pixel + chunks - 1) // chunks,
        address(target.map) + y * target.row + first * target.pixel,
        (pixels * target.pixel + chunks - 1) // chunks,
    )


@helper
def _strip(x, normalise, gain, bias, weights, add, shortcut, target, strip, fresh, own) -> None:
    """Compute a strip's results. fresh: see `_transformed_columns`. own: `Scratch`."""
    height, width, channels = x.shape
    blocks, pixel, tiles = weights.shape[1], channels * 4, strip.tiles
    line = (4 * tiles + 2) * pixel + PAD
    columns = Strided(own.columns, line)
    inputs = Strided(own.inputs, tiles * pixel + PAD)
    grid = Grid(own.results, 4 * tiles * blocks * BLOCK_BYTES + PAD, blocks * BLOCK_BYTES)
    matrix = channels * BLOCK_BYTES
    chunks = (tiles + MANY - 1) // MANY * (channels // CHUNK)
    groups = (blocks + GROUP - 1) // GROUP
    quarter, formed = POINTS // 4 * groups, 0
    upcoming = _prefetch(x, shortcut, target, strip, 0, quarter * chunks)
    _transformed_columns(x, normalise, gain, bias, strip, fresh, Strided(own.kept, line), columns)
    for number in range(len(PASSES)):
        _transformed_rows(columns, PASSES[number], tiles, pixel, inputs)
        for block in range(0, blocks, GROUP):
            some = min(GROUP, blocks - block)
            products = Strided(own.products, tiles * some * BLOCK_BYTES + PAD)
            w = address(weights) + (number * blocks + block) * EACH * matrix
            for p in range(EACH):
                gemm(
                    Strided(inputs.start + p * inputs.step, pixel),
                    tiles,
                    Strided(w + p * matrix, EACH * matrix),
                    channels,
                    some,
                    Strided(products.start + p * products.step, some * BLOCK_BYTES),
                    ONE_TERM,
                    upcoming,
                )
                formed += 1
                if formed % quarter:
                    upcoming = advanced(upcoming, chunks)
                else:
                    upcoming = _prefetch(x, shortcut, target, strip, formed // quarter, quarter * chunks)
            _add_pass(number, products, tiles, some, Grid(grid.start + block * BLOCK_BYTES, grid.row, grid.pixel))
    for r in range(min(4, height - 4 * strip.ty)):
        _finish_row(grid.start + r * grid.row, add, shortcut, target, strip, r, width)


@helper
def _add_pass(number, products, tiles, some, results) -> None:
    """Add a pass's products to the results of `some` blocks of filters."""
    size = some * BLOCK_BYTES
    for t in range(tiles):
        for d in range(0, size, BYTES):
            points = Strided(products.start + t * size + d, products.step)
            out = Grid(results.start + 4 * t * results.pixel + d, results.row, results.pixel)
            if number == 0:
                first_pass(points, out)
            elif number == 1:
                second_pass(points, out)
            else:
                third_pass(points, out)


@helper
def _finish_row(results, add, shortcut, target, strip, r, width) -> None:
    """Write row r of a strip's results to the target."""
    x, y, blocks = 4 * strip.tx, 4 * strip.ty + r, target.blocks.size
    sums = address(target.sums) + strip.ty * 2 * target.sums.shape[2] * 4
    for block in range(0, blocks, GROUP):
        c = sums + target.channels[block] * 4
        finish_run(
            min(4 * strip.tiles, width - x),
            min(GROUP, blocks - block),
            Strided(results + block * BLOCK_BYTES, blocks * BLOCK_BYTES),
            address(add) + block * BLOCK_BYTES,
            Strided(
                address(shortcut.map) + shortcut.first + y * shortcut.row + x * shortcut.pixel + block * shortcut.block,
                shortcut.pixel,
            ),
            shortcut.block,
            Strided(address(target.map) + y * target.row + x * target.pixel + target.blocks[block], target.pixel),
            Sums(c, c + target.sums.shape[2] * 4),
        )


@helper
def _rows_of_tiles(part, first, last, x, normalise, gain, bias, weights, add, shortcut, target, scratch) -> None:
    """Rows first to last - 1 of tiles."""
    _, width, channels = x.shape
    tiles_across = (width + 3) // 4
    quads, strips = (tiles_across + 3) // 4, (tiles_across + TILES - 1) // TILES
    sums_row = 2 * target.sums.shape[2] * 4
    filters = weights.shape[1] * BLOCK
    own = _scratch_from(address(scratch) + part * scratch.shape[1], width, channels, filters)
    clear(address(target.sums) + first * sums_row, (last - first) * sums_row)
    for number in range(strips):
        tx, end = number * quads // strips * 4, min((number + 1) * quads // strips * 4, tiles_across)
        for ty in range(first, last):
            strip = Strip(ty, tx, end - tx)
            _strip(x, normalise, gain, bias, weights, add, shortcut, target, strip, ty == first, own)


@kernel
def winograd(x, normalise, gain, bias, weights, add, shortcut, target, scratch) -> None:
    """Convolution of a map (H, W, C), or of swish(gain * x + bias) of it, plus `add` per channel and a map.

    weights: of `winograd_weights`. shortcut: `binary_conv.Shortcut`. target: `binary_conv.Target`, with one row of sums
        for four rows of the image. scratch: uint8 (threads, bytes), see `scratch_from`.
    Error: about 2e-5 for maps and results of order 1; direct convolution in float32 has 3e-6.
    """
    tile_rows = (len(x) + 3) // 4
    arguments = x, normalise, gain, bias, weights, add, shortcut, target, scratch
    split(tile_rows, _rows_of_tiles, arguments)

"""Full-precision 3x3 convolution in training, and the gradient of its weight, by Winograd's F(4x4, 3x3), on batches of
maps in PyTorch's layout.

A unit of work transforms some tiles of a slice of channels, and the weights of this slice and of a group of filters,
and multiplies them. Both and their products stay in the L2 cache; nothing transformed is written to memory. Tiles are
transformed again for each group, and weights for each chunk of tiles, which costs less than to load them from the L3
cache. Results do not depend on the number of threads.

Error: for the sizes of the full-size network and numbers of order 1, the root mean square error is 2e-6 to 5e-6 of the
result, and 1e-6 to 5e-6 for gradients of weights; oneDNN's is 2e-7 to 3e-7, and 4e-7 to 2e-6.
"""

from typing import NamedTuple

from bidiffsr_arch.packed.kernels.batch_winograd_transforms import (
    SIDE,
    gradient_tile,
    output_tile,
    to_channels_first,
    to_channels_last,
    weight_gradient_tile,
    weight_tile,
)
from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.places import Grid, Strided
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.strided_gemm import QUAD, WIDTH, Matrix, strided_gemm
from bidiffsr_arch.packed.kernels.vector_ir import BYTES, LANES, address, clear, copy
from bidiffsr_arch.packed.kernels.winograd_transforms import POINTS, transform_row

SLICE = 32
"""Channels of a slice."""

FILTERS = 64
"""Filters of a group, at most."""

TILES = 32
"""Tiles of a chunk, at most. With 64, convolutions take as long, and gradients of weights 5 % longer."""

TAPS = 9
TAP_BYTES = 4 * TAPS

CENTRE = 7
"""The point that is added to all 16 results of a tile with factor 1, where sums begin with what is added to all."""

PAD = 64
"""Bytes after each matrix and each row, so that they do not all fall on the same cache set."""


class Chunks(NamedTuple):
    """How the tiles of a batch are cut: rows of tiles, tiles of a row, segments of a row, rows of a chunk, chunks."""

    rows: int
    across: int
    segments: int
    taken: int
    number: int


class Chunk(NamedTuple):
    """Tiles `tx` to ``tx + tiles`` of `rows` rows of tiles from `row` on, all samples' rows counted through."""

    row: int
    rows: int
    tx: int
    tiles: int


def chunks_of(batch: int, height: int, width: int) -> Chunks:
    """The chunks of a batch of maps."""
    rows, across = batch * ((height + 3) // 4), (width + 3) // 4
    segments = (across + TILES - 1) // TILES
    taken = max(1, TILES // ((across + segments - 1) // segments))
    return Chunks(rows, across, segments, taken, (rows + taken - 1) // taken * segments)


_chunks_of = helper(chunks_of)


@helper
def _chunk(chunks, number) -> Chunk:
    row, segment = number // chunks.segments * chunks.taken, number % chunks.segments
    tx = segment * chunks.across // chunks.segments
    end = (segment + 1) * chunks.across // chunks.segments
    return Chunk(row, min(chunks.taken, chunks.rows - row), tx, end - tx)


@helper
def _multiple(tiles) -> int:
    """`tiles` rounded up to whole tiles of `strided_gemm`."""
    return (tiles + QUAD - 1) // QUAD * QUAD


@helper
def _window(x, n, c, channels, y, rows, left, pixels, out) -> None:
    """Copy a window of sample n, pixel by pixel, zeros outside of the image. out: `Strided`, row by row."""
    height, width = x.shape[2:]
    pixel, first, last = channels * 4, max(left, 0), min(left + pixels, width)
    before, plane = (first - left) * pixel, height * width * 4
    for r in range(rows):
        line = out.start + r * out.step
        if y + r < 0 or y + r >= height:
            clear(line, pixels * pixel)
        else:
            clear(line, before)
            clear(line + (last - left) * pixel, (left + pixels - last) * pixel)
            source = address(x) + (((n * x.shape[1] + c) * height + y + r) * width + first) * 4
            for d in range(0, channels, SIDE):
                to_channels_last(
                    last - first, Strided(source + d * plane, plane), Strided(line + before + 4 * d, pixel)
                )


@helper
def _clear_rest(tiles, pixel, matrices) -> None:
    """Zeros for the tiles that `strided_gemm` needs beyond the last. matrices: `Strided`, point by point."""
    for p in range(POINTS):
        clear(matrices.start + p * matrices.step + tiles * pixel, (_multiple(tiles) - tiles) * pixel)


@helper
def _transformed_inputs(x, c, chunk, pixels, out) -> None:
    """``B^T d B`` of SLICE channels of a chunk's tiles: for each point (tiles, SLICE). out: `Strided`."""
    tile_rows, pixel, width = (x.shape[2] + 3) // 4, SLICE * 4, 4 * chunk.tiles + 2
    line = width * pixel + PAD
    for r in range(chunk.rows):
        n, ty = (chunk.row + r) // tile_rows, (chunk.row + r) % tile_rows
        _window(x, n, c, SLICE, 4 * ty - 1, 6, 4 * chunk.tx - 1, width, Strided(pixels, line))
        for i in range(0, width * pixel, BYTES):
            transform_row(Strided(pixels + i, line), Strided(pixels + i, line))
        for q in range(6):
            for t in range(chunk.tiles):
                for d in range(0, pixel, BYTES):
                    source = pixels + q * line + 4 * t * pixel + d
                    target = out.start + 6 * q * out.step + (r * chunk.tiles + t) * pixel + d
                    transform_row(Strided(source, pixel), Strided(target, out.step))
    _clear_rest(chunk.rows * chunk.tiles, pixel, out)


@helper
def _transformed_gradients(grad, c, filters, chunk, pixels, out) -> None:
    """``A y A^T`` of some filters of a chunk's tiles: for each point (tiles, filters). out: `Strided`."""
    tile_rows, pixel, width = (grad.shape[2] + 3) // 4, filters * 4, 4 * chunk.tiles
    line = width * pixel + PAD
    for r in range(chunk.rows):
        n, ty = (chunk.row + r) // tile_rows, (chunk.row + r) % tile_rows
        _window(grad, n, c, filters, 4 * ty, 4, 4 * chunk.tx, width, Strided(pixels, line))
        for t in range(chunk.tiles):
            for d in range(0, pixel, BYTES):
                target = out.start + (r * chunk.tiles + t) * pixel + d
                gradient_tile(Grid(pixels + 4 * t * pixel + d, line, pixel), Grid(target, 6 * out.step, out.step))
    _clear_rest(chunk.rows * chunk.tiles, pixel, out)


@helper
def _transformed_weights(taps, c, f, filters, out) -> None:
    """``G g G^T`` of a slice and a group of filters: for each point (SLICE, filters). out: `Strided`."""
    channels, every = taps.shape[1:]
    for k in range(SLICE):
        source = address(taps) + ((c + k) * every + f) * 4
        for d in range(0, filters * 4, BYTES):
            target = out.start + k * filters * 4 + d
            row = 3 * channels * every * 4
            weight_tile(Grid(source + d, row, channels * every * 4), Grid(target, 6 * out.step, out.step))


class Scratch(NamedTuple):
    """A thread's scratch memory: addresses of transposed pixels, and of three sets of a matrix for each point."""

    pixels: int
    a: int
    b: int
    c: int
    end: int


def scratch_from(start: int) -> Scratch:
    """A thread's scratch memory, which begins at address `start`, a multiple of 64."""
    a = start + 6 * ((4 * TILES + 2) * FILTERS * 4 + PAD)
    b = a + POINTS * (TILES * FILTERS * 4 + PAD)
    c = b + POINTS * (max(TILES, FILTERS) * SLICE * 4 + PAD)
    return Scratch(start, a, b, c, c + POINTS * (max(TILES, SLICE) * FILTERS * 4 + PAD))


_scratch_from = helper(scratch_from)


@helper
def _results(m, out, f, filters, chunk, pixels) -> None:
    """``A^T m A`` of a chunk's tiles and a group of filters, into the maps. m: `Strided`."""
    height, width = out.shape[2:]
    tile_rows, pixel, plane = (height + 3) // 4, filters * 4, height * width * 4
    line = 4 * chunk.tiles * pixel + PAD
    left = 4 * chunk.tx
    inside = min(4 * chunk.tiles, width - left)
    for r in range(chunk.rows):
        n, y = (chunk.row + r) // tile_rows, (chunk.row + r) % tile_rows * 4
        for t in range(chunk.tiles):
            for d in range(0, pixel, BYTES):
                source = m.start + (r * chunk.tiles + t) * pixel + d
                output_tile(Grid(source, 6 * m.step, m.step), Grid(pixels + 4 * t * pixel + d, line, pixel))
        for i in range(min(4, height - y)):
            target = address(out) + (((n * out.shape[1] + f) * height + y + i) * width + left) * 4
            for d in range(0, filters, SIDE):
                to_channels_first(inside, Strided(pixels + i * line + 4 * d, pixel), Strided(target + d * plane, plane))


@helper
def _convolved_chunks(part, first, last, x, taps, add, out, scratch) -> None:
    """Units first to last - 1: a chunk of tiles and a group of filters each."""
    batch, channels, height, width = x.shape
    chunks = _chunks_of(batch, height, width)
    every = out.shape[1]
    groups = (every + FILTERS - 1) // FILTERS
    own = _scratch_from(address(scratch) + part * scratch.shape[1])
    for unit in range(first, last):
        chunk, f = _chunk(chunks, unit // groups), unit % groups * FILTERS
        filters, tiles = min(FILTERS, every - f), _multiple(chunk.rows * chunk.tiles)
        inputs = Strided(own.a, tiles * SLICE * 4 + PAD)
        weights = Strided(own.b, SLICE * filters * 4 + PAD)
        m = Strided(own.c, tiles * filters * 4 + PAD)
        for c in range(0, channels, SLICE):
            _transformed_inputs(x, c, chunk, own.pixels, inputs)
            if unit == first or channels > SLICE or groups > 1:
                _transformed_weights(taps, c, f, filters, weights)
            if c == 0:
                for t in range(tiles):
                    copy(m.start + CENTRE * m.step + t * filters * 4, address(add) + f * 4, filters * 4)
            for p in range(POINTS):
                a = Matrix(inputs.start + p * inputs.step, SLICE * 4, 4)
                for d in range(0, filters * 4, WIDTH):
                    strided_gemm(
                        a,
                        tiles,
                        Strided(weights.start + p * weights.step + d, filters * 4),
                        SLICE,
                        Strided(m.start + p * m.step + d, filters * 4),
                        c == 0 and p != CENTRE,
                    )
        _results(m, out, f, filters, chunk, own.pixels)


@helper
def _tap_major(part, first, last, weight, transposed, taps) -> None:
    """Rows first to last - 1 of channels: the weight as nine matrices (channels, filters)."""
    _, channels, filters = taps.shape
    matrix = channels * filters * 4
    for c in range(first, last):
        for f in range(0, filters, SIDE):
            target = address(taps) + (c * filters + f) * 4
            if transposed:
                source = Strided(address(weight) + (c * filters + f) * TAP_BYTES, TAP_BYTES)
                to_channels_last(TAPS, source, Strided(target + (TAPS - 1) * matrix, -matrix))
            else:
                source = Strided(address(weight) + (f * channels + c) * TAP_BYTES, channels * TAP_BYTES)
                to_channels_last(TAPS, source, Strided(target, matrix))


@kernel
def convolve_batch(x, weight, transposed, add, taps, out, scratch) -> None:
    """``out = conv(x, weight) + add``, 3x3, zero padding, stride 1; or, if `transposed`, the gradient of such a
    convolution's input: the gradient of its result convolved with the flipped, transposed weights.

    x: float32 (B, C, H, W). weight: float32 (F, C, 9), or (C, F, 9) if `transposed`. taps: scratch, float32 (9, C, F).
    add: float32 (F,). out: float32 (B, F, H, W). C and F are multiples of SLICE. scratch: uint8 (threads, bytes).
    """
    split(taps.shape[1], _tap_major, (weight, transposed, taps))
    groups = (out.shape[1] + FILTERS - 1) // FILTERS
    chunks = _chunks_of(x.shape[0], x.shape[2], x.shape[3])
    split(chunks.number * groups, _convolved_chunks, (x, taps, add, out, scratch))


@helper
def _weight_gradients(part, first, last, x, grad, parts, out, scratch) -> None:
    """Units first to last - 1: a part of the tiles, a group of filters and a slice of channels each."""
    batch, channels, height, width = x.shape
    chunks = _chunks_of(batch, height, width)
    every, slices = grad.shape[1], channels // SLICE
    groups = (every + FILTERS - 1) // FILTERS
    own = _scratch_from(address(scratch) + part * scratch.shape[1])
    for unit in range(first, last):
        share, f, c = unit // slices // groups, unit // slices % groups * FILTERS, unit % slices * SLICE
        filters = min(FILTERS, every - f)
        m = Strided(own.c, filters * SLICE * 4 + PAD)
        begin, end = share * chunks.number // parts, (share + 1) * chunks.number // parts
        for number in range(begin, end):
            chunk = _chunk(chunks, number)
            tiles = _multiple(chunk.rows * chunk.tiles)
            gradients, inputs = Strided(own.a, tiles * filters * 4 + PAD), Strided(own.b, tiles * SLICE * 4 + PAD)
            _transformed_gradients(grad, f, filters, chunk, own.pixels, gradients)
            _transformed_inputs(x, c, chunk, own.pixels, inputs)
            for p in range(POINTS):
                a = Matrix(gradients.start + p * gradients.step, 4, filters * 4)
                for d in range(0, SLICE * 4, WIDTH):
                    strided_gemm(
                        a,
                        filters,
                        Strided(inputs.start + p * inputs.step + d, SLICE * 4),
                        tiles,
                        Strided(m.start + p * m.step + d, SLICE * 4),
                        number == begin,
                    )
        for k in range(filters):
            target = address(out) + ((share * every + f + k) * channels + c) * TAP_BYTES
            for d in range(0, SLICE * 4, BYTES):
                source = m.start + k * SLICE * 4 + d
                weight_gradient_tile(Grid(source, 6 * m.step, m.step), Grid(own.pixels, 3 * BYTES, BYTES))
                for i in range(0, LANES, SIDE):
                    place = target + (d // 4 + i) * TAP_BYTES
                    to_channels_first(TAPS, Strided(own.pixels + 4 * i, BYTES), Strided(place, TAP_BYTES))


@kernel
def weight_gradient_batch(x, grad, parts, out, scratch) -> None:
    """The gradient of a 3x3 convolution's weight, summed over each of `parts` parts of the tiles.

    x: float32 (B, C, H, W). grad: float32 (B, F, H, W). C and F are multiples of SLICE. out: float32 (parts, F, C, 9).
    scratch: uint8 (threads, bytes).
    """
    groups = (grad.shape[1] + FILTERS - 1) // FILTERS
    split(parts * groups * (x.shape[1] // SLICE), _weight_gradients, (x, grad, parts, out, scratch))

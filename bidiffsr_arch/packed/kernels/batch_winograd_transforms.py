"""Transforms of Winograd's F(4x4, 3x3) for training, on vectors of channels: those of the result,
``Y = A^T [(G g G^T) * (B^T d B)] A``, and those of its derivative by g for a gradient y of Y,
``G^T [(A y A^T) * (B^T d B)] G``. Maps in PyTorch's layout are transposed in blocks.
"""

from collections.abc import Callable

from llvmlite import ir

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.places import Strided
from bidiffsr_arch.packed.kernels.vector_ir import (
    I32,
    constant,
    copy,
    int64,
    load,
    multiply_add,
    offset,
    procedure,
    store,
)
from bidiffsr_arch.packed.kernels.winograd_transforms import output_line

SIDE = 8
"""Channels and pixels of a block that is transposed at once."""

EIGHT = ir.VectorType(ir.FloatType(), SIDE)
STAGES = (
    (1, [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]),
    (2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    (4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
)
"""Distance of two vectors that exchange lanes, and the lanes that each gets; one x86 instruction per vector."""
ORDER = (0, 2, 1, 3, 4, 6, 5, 7)
"""Columns in the order in which the stages leave them."""


@procedure
def transpose_block(b, source, target) -> None:
    """Transpose 8 rows of 8 numbers. source, target: `Strided`."""
    lines = [load(b, offset(b, source.start, b.mul(source.step, int64(i))), EIGHT) for i in range(SIDE)]
    for distance, *masks in STAGES:
        low, high = (ir.Constant(ir.VectorType(I32, SIDE), mask) for mask in masks)
        for i in range(SIDE):
            if not i & distance:
                pair = lines[i], lines[i + distance]
                lines[i], lines[i + distance] = b.shuffle_vector(*pair, low), b.shuffle_vector(*pair, high)
    for line, i in zip(lines, ORDER, strict=True):
        store(b, line, offset(b, target.start, b.mul(target.step, int64(i))))


@helper
def to_channels_last(pixels, channels, out) -> None:
    """Eight channels of a run of pixels, each contiguous, become eight neighbouring numbers of each pixel.

    channels: `Strided`, channel by channel. out: `Strided`, pixel by pixel.
    """
    for i in range(0, pixels - SIDE + 1, SIDE):
        transpose_block(Strided(channels.start + 4 * i, channels.step), Strided(out.start + i * out.step, out.step))
    for i in range(pixels // SIDE * SIDE, pixels):
        for c in range(SIDE):
            copy(out.start + i * out.step + 4 * c, channels.start + c * channels.step + 4 * i, 4)


@helper
def to_channels_first(pixels, x, channels) -> None:
    """The inverse of `to_channels_last`. x: `Strided`, pixel by pixel. channels: `Strided`, channel by channel."""
    for i in range(0, pixels - SIDE + 1, SIDE):
        transpose_block(Strided(x.start + i * x.step, x.step), Strided(channels.start + 4 * i, channels.step))
    for i in range(pixels // SIDE * SIDE, pixels):
        for c in range(SIDE):
            copy(channels.start + c * channels.step + 4 * i, x.start + i * x.step + 4 * c, 4)


def _weight_line(b, g: list) -> list:
    """``G g`` of three vectors."""
    ends = b.fmul(b.fadd(g[0], g[2]), constant(-1 / 6))
    wide = multiply_add(b, g[2], constant(1 / 6), b.fmul(g[0], constant(1 / 24)))
    sixth, twelfth = b.fmul(g[1], constant(1 / 6)), b.fmul(g[1], constant(1 / 12))
    return [
        b.fmul(g[0], constant(1 / 4)),
        b.fsub(ends, sixth),
        b.fadd(ends, sixth),
        b.fadd(wide, twelfth),
        b.fsub(wide, twelfth),
        g[2],
    ]


def _weight_gradient_line(b, m: list) -> list:
    """``G^T m`` of six vectors."""
    s1, d1 = b.fadd(m[1], m[2]), b.fsub(m[2], m[1])
    s2, d2 = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    first = multiply_add(b, s2, constant(1 / 24), b.fmul(m[0], constant(1 / 4)))
    return [
        multiply_add(b, s1, constant(-1 / 6), first),
        multiply_add(b, d2, constant(1 / 12), b.fmul(d1, constant(1 / 6))),
        multiply_add(b, b.fsub(s2, s1), constant(1 / 6), m[5]),
    ]


def _gradient_line(b, y: list) -> list:
    """``A y`` of four vectors."""
    even, odd = b.fadd(y[0], y[2]), b.fadd(y[1], y[3])
    even2 = multiply_add(b, y[2], constant(4.0), y[0])
    odd2 = multiply_add(b, y[3], constant(8.0), b.fmul(y[1], constant(2.0)))
    return [y[0], b.fadd(even, odd), b.fsub(even, odd), b.fadd(even2, odd2), b.fsub(even2, odd2), y[3]]


def _square(line: Callable, side: int) -> Callable:
    """The function that transforms a square of `side` by `side` vectors along both axes."""

    @procedure
    def transform(b, x, out) -> None:
        """x, out: `Grid`."""
        rows = []
        for r in range(side):
            start = offset(b, x.start, b.mul(x.row, int64(r)))
            rows.append(line(b, [load(b, offset(b, start, b.mul(x.pixel, int64(q)))) for q in range(side)]))
        for q, column in enumerate(zip(*rows, strict=True)):
            start = offset(b, out.start, b.mul(out.pixel, int64(q)))
            for r, value in enumerate(line(b, list(column))):
                store(b, value, offset(b, start, b.mul(out.row, int64(r))))

    return transform


weight_tile, weight_gradient_tile = _square(_weight_line, 3), _square(_weight_gradient_line, 6)
gradient_tile, output_tile = _square(_gradient_line, 4), _square(output_line, 6)

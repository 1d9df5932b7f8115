"""The transforms of Winograd's F(4x4, 3x3), ``Y = A^T [(G g G^T) * (B^T d B)] A``, on vectors of channels (Lavin & Gray
2016, with the points 0, ±1, ±2 and infinity).
"""

from collections.abc import Callable

import numpy as np

from bidiffsr_arch.packed.kernels.signs import norm_swished
from bidiffsr_arch.packed.kernels.vector_ir import constant, int64, load, multiply_add, offset, procedure, store
from bidiffsr_arch.packed.layout import BLOCK, aligned_copy, padded

PASSES = ((0, 5), (1, 2), (3, 4))
"""Rows of the 6x6 points that are multiplied together; together they need the fewest additions."""

POINTS = 36
EACH = POINTS // len(PASSES)
"""Points of a pass."""

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
    """``G g G^T`` of a weight (C_out, C_in, 3, 3), in float64, as float32 (passes, C_out / BLOCK, points of a pass,
    C_in, BLOCK), channels padded.
    """
    filters, channels = weight.shape[:2]
    full = np.zeros((padded(filters), padded(channels), 3, 3))
    full[:filters, :channels] = weight
    points = np.einsum("ai,ocij,bj->abco", G, full, G)[np.ravel(PASSES)]
    points = points.reshape(len(PASSES), EACH, padded(channels), -1, BLOCK).astype(np.float32)
    return aligned_copy(points.transpose(0, 3, 1, 2, 4))


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


def output_line(b, m: list) -> list:
    """``A^T m`` of six vectors."""
    s1, d1 = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    s2, d2 = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], s1), s2),
        multiply_add(b, d2, constant(2.0), d1),
        multiply_add(b, s2, constant(4.0), s1),
        b.fadd(multiply_add(b, d2, constant(8.0), d1), m[5]),
    ]


def _columns(normalise: bool) -> Callable:
    """The function that transforms six rows of x, or of swish(gain * x + bias)."""

    @procedure
    def transform(b, x, inside, gain, bias, kept, points) -> None:
        """``B^T d`` of LANES channels of a pixel of six rows.

        x: `Strided`, the four new rows; the first `inside` of them are in the image, the others are zeros. kept:
        `Strided`, the two rows before them, already normalised; the last two new rows replace them. points: `Strided`,
        the six results.
        """
        rows = [load(b, offset(b, kept.start, b.mul(kept.step, int64(r)))) for r in range(2)]
        last = b.sub(inside, int64(1))
        for r in range(4):
            is_inside = b.icmp_signed("<", int64(r), inside)
            row = b.select(is_inside, int64(r), last)
            value = load(b, offset(b, x.start, b.mul(x.step, row)))
            if normalise:
                value = norm_swished(b, value, gain, bias)
            rows.append(b.select(is_inside, value, constant(0.0)))
        for r, value in enumerate(rows[4:]):
            store(b, value, offset(b, kept.start, b.mul(kept.step, int64(r))))
        for r, value in enumerate(_input_line(b, rows)):
            store(b, value, offset(b, points.start, b.mul(points.step, int64(r))))

    return transform


plain_columns, norm_swish_columns = _columns(normalise=False), _columns(normalise=True)


@procedure
def transform_row(b, x, points) -> None:
    """``d B`` of LANES channels of six neighbouring pixels. x: `Strided`. points: `Strided`, the six results."""
    pixels = [load(b, offset(b, x.start, b.mul(x.step, int64(q)))) for q in range(6)]
    for q, value in enumerate(_input_line(b, pixels)):
        store(b, value, offset(b, points.start, b.mul(points.step, int64(q))))


OUTPUT = [[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]]
"""``A``: the factor with which each row of points is added to each row of results."""


def _results(number: int) -> Callable:
    """The function that adds a pass's products to the results."""
    begun = {i for rows in PASSES[:number] for r in rows for i in range(4) if OUTPUT[r][i]}

    @procedure
    def add_pass(b, points, out) -> None:
        """``out += A^T m A`` for the rows m of this pass, a tile of LANES channels; rows of results to which no earlier
        pass has added are overwritten.

        points: `Strided`, the 12 vectors m. out: `Grid`.
        """
        lines = []
        for r in range(2):
            m = [load(b, offset(b, points.start, b.mul(points.step, int64(6 * r + q)))) for q in range(6)]
            lines.append(output_line(b, m))
        for x, (u, v) in enumerate(zip(*lines, strict=True)):
            total, difference = b.fadd(u, v), b.fsub(u, v)
            for i, (p, q) in enumerate(zip(*(OUTPUT[r] for r in PASSES[number]), strict=True)):
                if p == q == 0:
                    continue
                value = u if q == 0 else v if p == 0 else total if p == q else difference
                place = offset(b, offset(b, out.start, b.mul(out.row, int64(i))), b.mul(out.pixel, int64(x)))
                if i in begun:
                    value = multiply_add(b, value, constant(p or q), load(b, place))
                store(b, value, place)

    return add_pass


first_pass, second_pass, third_pass = (_results(number) for number in range(len(PASSES)))

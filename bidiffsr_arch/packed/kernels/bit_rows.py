"""Where a thread of the 1-bit convolution keeps the bits of its rows, and what it counts them with."""

from typing import NamedTuple

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.layout import ROWS


class BitRows(NamedTuple):
    """`ROWS` slots for rows of bits, of `row` bytes each from the address `start` on; `slot` holds the first row that
    is needed, and the next ones follow in turn.
    """

    start: int
    row: int
    slot: int


class Taps(NamedTuple):
    """Weights of a block of filters: radius of the taps (0 or 1), bytes of a pixel's bits, address of the weights."""

    radius: int
    pixel: int
    weights: int


class Segment(NamedTuple):
    """Pixels x to x + pixels of a row of `width` pixels."""

    x: int
    pixels: int
    width: int


@helper
def bit_row(bits, number) -> int:
    """Address of the bits of row `number`, counted from the first that is needed."""
    return bits.start + (bits.slot + number) % ROWS * bits.row

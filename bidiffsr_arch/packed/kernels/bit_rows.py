"""Bits and weights of the 1-bit convolution, as its helpers pass them."""

from typing import NamedTuple


class BitRows(NamedTuple):
    """A ring buffer of `ROWS` rows of bits at address `start`, `row` bytes each; `slot` is the index of the first row
    that is needed.
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
    """Pixels x to x + pixels - 1 of a row of `width` pixels."""

    x: int
    pixels: int
    width: int

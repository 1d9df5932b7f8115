"""Memory locations as kernels pass them: addresses, and strides in bytes."""

from typing import NamedTuple


class Strided(NamedTuple):
    """Neighbouring pixels or rows: the address of the first, and their stride; a stride of 0 repeats the first."""

    start: int
    step: int


class Grid(NamedTuple):
    """Pixels of an image: the address of the first, and the strides of rows and pixels."""

    start: int
    row: int
    pixel: int


class Sums(NamedTuple):
    """Addresses of a row's sums of values and of squares, channel by channel."""

    values: int
    squares: int

"""Places in memory, as kernels pass them on: addresses, and distances in bytes."""

from typing import NamedTuple


class Strided(NamedTuple):
    """Neighbouring pixels or rows: the address of the first, and the distance from one to the next; 0 for the same one
    again and again.
    """

    start: int
    step: int


class Grid(NamedTuple):
    """Pixels of an image: the address of the first, and the distances to the next row and to the next pixel."""

    start: int
    row: int
    pixel: int


class Sums(NamedTuple):
    """Addresses of a row's sums of values and of squares, channel by channel."""

    values: int
    squares: int

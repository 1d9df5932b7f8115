"""Room for maps: taken, given back, and used again by the next one of the same size."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from bidiffsr_arch.packed.layout import aligned

SPARE = 2**28
"""Bytes of unused maps that are kept; with more, a map of a new size takes memory that the system had back first."""


class Workspace:
    """Maps that nobody uses at the moment, by size. What they hold is finite, and otherwise whatever was in them."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)
        self._size = (0, 0)

    def begin(self, size: tuple[int, int]) -> None:
        """Before a picture of `size`: maps for pictures of another size are dropped."""
        if size != self._size:
            self._free.clear()
            self._size = size

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        free = self._free[prod(shape)]
        if free:
            return free.pop().reshape(shape)
        if sum(array.nbytes for arrays in self._free.values() for array in arrays) > SPARE:
            self._free.clear()
        return aligned(shape)

    def give(self, array: np.ndarray) -> None:
        self._free[array.size].append(array)

    @contextmanager
    def maps(self, *shapes: tuple[int, ...]) -> Iterator[list[np.ndarray]]:
        """Maps for the length of a block."""
        arrays = [self.take(shape) for shape in shapes]
        yield arrays
        for array in arrays:
            self.give(array)

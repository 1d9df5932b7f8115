"""Room for maps: taken, given back, and used again, whole or in parts, by the next ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from bidiffsr_arch.packed.layout import aligned

GRAIN = 16
"""Floats of a cache line; every map starts at one."""


class Block:
    """Memory from the system, and what of it is free: (start, stop) in floats, in order, none next to each other."""

    def __init__(self, size: int) -> None:
        self.memory = aligned((size,))
        self.free = [(0, size)]

    @property
    def address(self) -> int:
        return self.memory.ctypes.data

    @property
    def unused(self) -> bool:
        return self.free == [(0, self.memory.size)]

    def take(self, gap: tuple[int, int], size: int) -> np.ndarray:
        """The first `size` floats of one of the free gaps."""
        start, stop = gap
        place = self.free.index(gap)
        self.free[place : place + 1] = [(start + size, stop)] if start + size < stop else []
        return self.memory[start : start + size]

    def give(self, start: int, size: int) -> None:
        gaps = sorted([*self.free, (start, start + size)])
        self.free = gaps[:1]
        for first, last in gaps[1:]:
            if first == self.free[-1][1]:
                self.free[-1] = (self.free[-1][0], last)
            else:
                self.free.append((first, last))


class Workspace:
    """Memory for the maps of pictures of one size, kept from step to step: to give large maps back to the system and
    take them anew costs more time than layers do.

    What maps hold is finite, and otherwise whatever was in them.
    """

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._size = (0, 0)

    def begin(self, size: tuple[int, int]) -> None:
        """Before a picture of `size`: memory for another size is dropped, and all of it free, whatever ended the last
        picture."""
        if size != self._size:
            self._blocks.clear()
            self._size = size
        for block in self._blocks:
            block.free = [(0, block.memory.size)]

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """A map, in the smallest gap that holds it."""
        size = -(-prod(shape) // GRAIN) * GRAIN
        fitting = [(stop - start, i, (start, stop)) for i, block in enumerate(self._blocks)
                   for start, stop in block.free if stop - start >= size]  # fmt: skip
        if not fitting:
            # The large one will serve small ones, too, from the next picture on.
            self._blocks = [*(block for block in self._blocks if not block.unused), Block(size)]
            fitting = [(size, len(self._blocks) - 1, (0, size))]
        _, i, gap = min(fitting)
        return self._blocks[i].take(gap, size)[: prod(shape)].reshape(shape)

    def give(self, array: np.ndarray) -> None:
        """Give a map of this workspace back."""
        address, size = array.ctypes.data, -(-array.size // GRAIN) * GRAIN
        for block in self._blocks:
            start = (address - block.address) // array.itemsize
            if 0 <= start < block.memory.size:
                block.give(start, size)
                return
        raise ValueError("expected a map of this workspace, got another array")

    @contextmanager
    def maps(self, *shapes: tuple[int, ...]) -> Iterator[list[np.ndarray]]:
        """Maps for the length of a block."""
        arrays = [self.take(shape) for shape in shapes]
        yield arrays
        for array in arrays:
            self.give(array)

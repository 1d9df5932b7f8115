"""The arena in which feature maps are allocated: memory from the system is reused from step to step."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from bidiffsr_arch.packed.backends.protocol import Map
from bidiffsr_arch.packed.layout import aligned, padded

GRAIN = 16
"""Floats of a cache line; every map starts at one."""


class Block:
    """Memory from the system and its free gaps: (start, stop) in floats, sorted, with adjacent gaps merged."""

    def __init__(self, size: int) -> None:
        self.memory = aligned((size,))
        self.free = [(0, size)]

    @property
    def address(self) -> int:
        """Start address of the memory."""
        return self.memory.ctypes.data

    @property
    def unused(self) -> bool:
        """Whether all of it is free."""
        return self.free == [(0, self.memory.size)]

    def allocate(self, gap: tuple[int, int], size: int) -> np.ndarray:
        """The first `size` floats of one of the free gaps."""
        start, stop = gap
        place = self.free.index(gap)
        self.free[place : place + 1] = [(start + size, stop)] if start + size < stop else []
        return self.memory[start : start + size]

    def release(self, start: int, size: int) -> None:
        """Free `size` floats from `start` on."""
        gaps = sorted([*self.free, (start, start + size)])
        self.free = gaps[:1]
        for first, last in gaps[1:]:
            if first == self.free[-1][1]:
                self.free[-1] = (self.free[-1][0], last)
            else:
                self.free.append((first, last))


class Arena:
    """Memory for the feature maps of images of one size, kept from step to step: allocating large maps from the system
    takes longer than some layers.

    A new map is uninitialised, except for its padding channels, which are 0.
    """

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._size = (0, 0)

    def begin(self, size: tuple[int, int]) -> None:
        """Prepare for an image of `size`: release all maps, and free the memory if the previous size was different."""
        if size != self._size:
            self._blocks.clear()
            self._size = size
        for block in self._blocks:
            block.free = [(0, block.memory.size)]

    def allocate(self, shape: tuple[int, int, int]) -> Map:
        """Allocate a map for (H, W, C), of shape (H, W, padded C), in the smallest gap that is large enough."""
        height, width, channels = shape
        out = self._allocate((height, width, padded(channels)))
        # Kernels multiply padding channels by 0, which would give NaN for NaN or infinity left by an earlier image.
        out[..., channels:] = 0
        return out

    def release(self, array: Map) -> None:
        """Release the memory of a map of this arena."""
        address, size = array.ctypes.data, -(-array.size // GRAIN) * GRAIN
        for block in self._blocks:
            start = (address - block.address) // array.itemsize
            if 0 <= start < block.memory.size:
                block.release(start, size)
                return
        raise ValueError("expected a map of this arena, got another array")

    @contextmanager
    def maps(self, *shapes: tuple[int, int, int]) -> Iterator[list[Map]]:
        """Allocate maps, and release them when the context ends."""
        arrays = [self.allocate(shape) for shape in shapes]
        yield arrays
        for array in arrays:
            self.release(array)

    def _allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        size = -(-prod(shape) // GRAIN) * GRAIN
        fitting = [
            (stop - start, i, (start, stop))
            for i, block in enumerate(self._blocks)
            for start, stop in block.free
            if stop - start >= size
        ]
        if not fitting:
            # From the next image on, the large block serves small maps, too.
            self._blocks = [*(block for block in self._blocks if not block.unused), Block(size)]
            fitting = [(size, len(self._blocks) - 1, (0, size))]
        _, i, gap = min(fitting)
        return self._blocks[i].allocate(gap, size)[: prod(shape)].reshape(shape)

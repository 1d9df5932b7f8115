"""Prefetching of maps from memory while bits are counted from the caches.

Without it, memory access and arithmetic alternate on large maps instead of overlapping. Lines are prefetched in memory
order, which triggers the CPU's hardware prefetcher, and a few at a time, because a CPU supports few outstanding loads.
"""

from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import fetch, int64, offset, procedure, repeat

LINE = 64
"""Bytes of a cache line; one line of each map is prefetched per pixel and block of channels."""


class Prefetch(NamedTuple):
    """Addresses of the first line to prefetch: of the source, of a shortcut, and of the results.

    step: bytes from one line of the shortcut to the next; 0 without a shortcut.
    """

    source: int
    shortcut: int
    step: int
    out: int


@procedure
def _fetch(b, lines, upcoming) -> None:
    def one(i, carried) -> list[Value]:
        line = b.mul(i, int64(LINE))
        fetch(b, offset(b, upcoming.source, line))
        fetch(b, offset(b, upcoming.shortcut, b.mul(i, upcoming.step)))
        fetch(b, offset(b, upcoming.out, line), write=True)
        return []

    repeat(b, lines, [], one)


@helper
def prefetch(upcoming, first, lines) -> None:
    """Prefetch `lines` lines from number `first` on."""
    if lines > 0:
        start, step = first * LINE, upcoming.step
        _fetch(lines, Prefetch(upcoming.source + start, upcoming.shortcut + first * step, step, upcoming.out + start))

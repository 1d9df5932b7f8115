"""Prefetching from memory while bits are counted, which needs no memory.

Without it a large map waits for memory in one pass, and for the arithmetic unit in the next. Lines are prefetched in
the order in which they lie in memory, which starts the CPU's own prefetching, and a few at a time, as a CPU waits for
few at once.
"""

from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import fetch, int64, offset, procedure, repeat

LINE = 64
"""Bytes of a cache line; one of each map is prefetched with every pixel and block of channels."""


class Prefetch(NamedTuple):
    """Addresses of the first line to prefetch: of the source, of a shortcut, and of the results.

    step: bytes from line to line of the shortcut, 0 where there is none.
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

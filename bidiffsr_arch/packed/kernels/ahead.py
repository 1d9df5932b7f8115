"""Asking memory for what comes next while bits are counted.

Counting needs no memory, and the passes before and after it little else: unasked, a large map waits for one, then for
the other. Lines are asked for in the order in which they lie in memory, as that sets the CPU's own prefetching going,
and a few at a time, as a CPU waits for few at once.
"""

from typing import NamedTuple

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import fetch, int64, offset, procedure, repeat

LINE = 64
"""Bytes of a cache line; a line of each map is asked for with every pixel and block of channels counted."""


class Ahead(NamedTuple):
    """Addresses of the first line to ask for: of the source of coming bits, of a shortcut, and of the place of results;
    step: bytes from line to line of the shortcut, 0 where there is none.
    """

    source: int
    shortcut: int
    step: int
    out: int


@procedure
def _fetch(b, lines, source, shortcut, step, out):
    def one(i, carried):
        line = b.mul(i, int64(LINE))
        fetch(b, offset(b, source, line))
        fetch(b, offset(b, shortcut, b.mul(i, step)))
        fetch(b, offset(b, out, line), write=True)
        return []

    repeat(b, lines, [], one)


@helper
def fetch_ahead(ahead, first, lines):
    """Ask for `lines` lines from number `first` on."""
    if lines <= 0:
        return
    _fetch(
        lines,
        ahead.source + first * LINE,
        ahead.shortcut + first * ahead.step,
        ahead.step,
        ahead.out + first * LINE,
    )

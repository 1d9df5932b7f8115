"""Asking memory for what comes next while this row is counted.

Counting needs no memory and the passes before and after it little else: unasked, a large map waits for one, then for
the other. Bits are made from whole rows, so their source is wanted two rows early; the epilogue takes its shortcut and
the place of its results right after the counts.
"""

from typing import NamedTuple

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import fetch, int64, offset, procedure, repeat


class Ahead(NamedTuple):
    """Addresses of one block of channels of the first pixel of a segment, and their distances from pixel to pixel, in
    bytes: of the source of coming bits, of the shortcut, and of the results.
    """

    source: int
    source_pixel: int
    shortcut: int
    shortcut_pixel: int
    out: int
    out_pixel: int


@procedure
def _fetch(b, pixels, source, source_pixel, shortcut, shortcut_pixel, out, out_pixel):
    """One cache line, which is one block of channels, of each pixel."""

    def pixel(i, carried):
        fetch(b, offset(b, source, b.mul(i, source_pixel)))
        fetch(b, offset(b, shortcut, b.mul(i, shortcut_pixel)))
        fetch(b, offset(b, out, b.mul(i, out_pixel)), write=True)
        return []

    repeat(b, pixels, [], pixel)


@helper
def fetch_ahead(ahead, first, pixels):
    """Ask for all of `pixels` pixels from the segment's pixel `first` on."""
    _fetch(
        pixels,
        ahead.source + first * ahead.source_pixel,
        ahead.source_pixel,
        ahead.shortcut + first * ahead.shortcut_pixel,
        ahead.shortcut_pixel,
        ahead.out + first * ahead.out_pixel,
        ahead.out_pixel,
    )

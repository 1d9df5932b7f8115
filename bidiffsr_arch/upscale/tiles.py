"""A network run on overlapping tiles whose predictions are blended, so that its memory does not grow with the image.

The sampler sees one image and one noise: only the network's view is cut, at every step anew, so no seam can build up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bidiffsr_arch.diffusion.super_resolution import Network
from bidiffsr_arch.errors import InputError

# Of each overlap the outer quarters are left out, since there a tile's predictions know too little of what lies around.
UNTRUSTED = 0.25


@dataclass(frozen=True)
class Span:
    """A tile's extent on one axis, and how much its prediction counts at each place: (stop - start,) in [0, 1]."""

    start: int
    stop: int
    weight: Tensor


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Equal tiles that cover one axis; their weights sum to 1 everywhere.

    Args:
        length: pixels on the axis, a multiple of `multiple`.
        tile: the most pixels of a tile; they are made as small as their number allows.
        overlap: pixels that neighbours share at least. A prediction that depends on pixels no farther than overlap / 4
            away is the same as without tiles.
        multiple: tiles start and end at multiples of it. `tile` is rounded down to one, `overlap` up.
    Raises:
        InputError: the overlap is negative or more than half of the tile.
    """
    asked = tile, overlap
    tile, overlap = tile // multiple * multiple, -(-overlap // multiple) * multiple
    if asked[1] < 0 or tile < max(2 * overlap, multiple):
        raise InputError(
            "expected an overlap from 0 to half of the tile, got tile {} and overlap {} ".format(*asked)
            + f"(the network takes multiples of {multiple})"
        )
    if tile >= length:
        return [Span(0, length, torch.ones(length))]
    count = -(-(length - overlap) // (tile - overlap))
    size = -(-(length + (count - 1) * overlap) // (count * multiple)) * multiple
    starts = [place * (length - size) // (count - 1) // multiple * multiple for place in range(count)]

    position = torch.arange(length) + 0.5
    rises = [torch.ones(length)]
    for start, following in pairwise(starts):
        shared = start + size - following
        inset = shared * UNTRUSTED
        ramp = max(shared - 2 * inset, 1e-6)  # without overlap, a step
        rises.append(((position - following - inset) / ramp).clamp(0, 1))
    falls = [1 - rise for rise in rises[1:]] + [torch.ones(length)]
    return [
        Span(start, start + size, (rise * fall)[start : start + size])
        for start, rise, fall in zip(starts, rises, falls, strict=True)
    ]


class TiledNetwork:
    """A network (x_t, condition, time) -> prediction that is called tile by tile.

    Args:
        network: the network.
        tile: most pixels of a tile's side; None for the whole image at once.
        overlap: pixels that neighbouring tiles share, see `spans`.
        multiple: sides that the network takes are multiples of it.
        on_tile: called after each tile.
    """

    def __init__(
        self,
        network: Network,
        tile: int | None,
        overlap: int,
        multiple: int = 1,
        on_tile: Callable[[], None] = lambda: None,
    ) -> None:
        self.network, self.tile, self.overlap, self.multiple = network, tile, overlap, multiple
        self.on_tile = on_tile

    def grid(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """Rows and columns of tiles for an image of height x width pixels, both multiples of `multiple`."""
        rows, columns = (
            spans(length, self.tile or length, self.overlap if self.tile else 0, self.multiple)
            for length in (height, width)
        )
        return rows, columns

    def __call__(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """x_t, condition: (B, 3, H, W); time: (B,) -> (B, 3, H, W)."""
        rows, columns = self.grid(*x_t.shape[-2:])
        blended = torch.zeros_like(x_t)
        for row in rows:
            for column in columns:
                tile = (..., slice(row.start, row.stop), slice(column.start, column.stop))
                weight = (row.weight[:, None] * column.weight).to(x_t.device)
                blended[tile] += weight * self.network(x_t[tile].contiguous(), condition[tile].contiguous(), time)
                self.on_tile()
        return blended

"""Overlapping tiles along one axis of an image, and the weights with which their predictions are blended."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bidiffsr_arch.errors import InputError

# Fraction of an overlap at each end that is not used, because a tile's predictions lack context there.
UNTRUSTED = 0.25


@dataclass(frozen=True)
class Span:
    """A tile's extent along one axis, and the weights of its predictions, (stop - start,) in [0, 1]."""

    start: int
    stop: int
    weight: Tensor


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Equally sized tiles that cover one axis; their weights sum to 1 at every pixel.

    Args:
        length: pixels along the axis, a multiple of `multiple`.
        tile: largest size of a tile; tiles are as small as their number allows.
        overlap: smallest overlap of neighbours. If predictions depend on pixels at most overlap / 4 away, the result is
            the same as without tiles.
        multiple: tiles start and end at multiples of it. `tile` is rounded down to a multiple, `overlap` up.
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
    starts = [index * (length - size) // (count - 1) // multiple * multiple for index in range(count)]

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

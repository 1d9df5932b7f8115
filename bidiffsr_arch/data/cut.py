"""The positions of overlapping square subimages in an image."""

from collections.abc import Iterator
from dataclasses import dataclass

from bidiffsr_arch.errors import InputError


@dataclass(frozen=True)
class Cut:
    """Settings for cutting images, in pixels of HR.

    Attributes:
        scale: size of HR divided by that of LR.
        size: side of a square subimage, a multiple of scale.
        step: distance between subimages, a multiple of scale; the last one of a row ends at the edge.
    """

    scale: int
    size: int = 480
    step: int = 240

    def __post_init__(self) -> None:
        if self.scale < 1 or any(side < 1 or side % self.scale for side in (self.size, self.step)):
            raise InputError(
                f"expected size and step to be multiples of the scale {self.scale}, got {self.size} and {self.step}"
            )

    def starts(self, side: int) -> list[int]:
        """Start positions of subimages along a side of an HR image; none if it is too small."""
        starts = list(range(0, side - self.size + 1, self.step))
        return starts if not starts or starts[-1] + self.size == side else [*starts, side - self.size]

    def squares(self, width: int, height: int) -> Iterator[tuple[str, int, int]]:
        """Name (_s001, _s002, …), top and left of every subimage, row by row."""
        corners = ((top, left) for top in self.starts(height) for left in self.starts(width))
        return ((f"_s{number:03d}", top, left) for number, (top, left) in enumerate(corners, 1))

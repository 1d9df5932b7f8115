"""Run a network on overlapping tiles and blend the predictions, so that its memory does not grow with the image.

The sampler works on the whole image and noise. Only the network's input is cut into tiles, in every step, so seams
cannot accumulate over steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bidiffsr_arch.diffusion.super_resolution import Network
from bidiffsr_arch.upscale.spans import Span, spans


class TiledNetwork:
    """A network (x_t, condition, time) -> prediction that is called tile by tile.

    Args:
        network: the network.
        tile: largest side of a tile in pixels; None for the whole image at once.
        overlap: overlap of neighbouring tiles in pixels, see `spans`.
        multiple: height and width of the network's input must be multiples of it.
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
        """Predict (B, 3, H, W) from x_t and condition, (B, 3, H, W), and time, (B,)."""
        rows, columns = self.grid(*x_t.shape[-2:])
        if len(rows) == len(columns) == 1:
            prediction = self.network(x_t, condition, time)
            self.on_tile()
            return prediction
        blended = torch.zeros_like(x_t)
        for row in rows:
            for column in columns:
                tile = (..., slice(row.start, row.stop), slice(column.start, column.stop))
                weight = (row.weight[:, None] * column.weight).to(x_t.device)
                blended[tile] += weight * self.network(x_t[tile].contiguous(), condition[tile].contiguous(), time)
                self.on_tile()
        return blended

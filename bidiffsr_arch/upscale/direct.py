"""Run a network without diffusion once per overlapping tile, and blend the results."""

from collections.abc import Callable

import torch
from torch import Tensor

from bidiffsr_arch.diffusion.images import pad_to_multiple
from bidiffsr_arch.upscale.spans import Span, spans


class DirectNetwork:
    """A network LR image -> HR image that is called tile by tile.

    Args:
        network: (1, 3, h, w) -> (1, 3, scale * h, scale * w), values in [0, 1].
        scale: height and width of the result divided by those of the image.
        tile: largest side of a tile in result pixels; None for the whole image at once.
        overlap: overlap of neighbouring tiles in result pixels, see `spans`.
        multiple: height and width of the network's input must be multiples of it.
        on_tile: called after each tile.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        scale: int,
        tile: int | None,
        overlap: int,
        multiple: int = 1,
        on_tile: Callable[[], None] = lambda: None,
    ) -> None:
        self.network, self.scale, self.tile, self.overlap, self.multiple = network, scale, tile, overlap, multiple
        self.on_tile = on_tile

    def grid(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """Rows and columns of tiles, in image pixels, for an image of height x width pixels."""
        tile, overlap = (self.tile // self.scale, -(-self.overlap // self.scale)) if self.tile else (None, 0)
        padded = [-(-length // self.multiple) * self.multiple for length in (height, width)]
        rows, columns = (spans(length, tile or length, overlap, self.multiple) for length in padded)
        return rows, columns

    def __call__(self, image: Tensor) -> Tensor:
        """Map an image (1, 3, h, w) in [0, 1] to (1, 3, scale * h, scale * w) in [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.multiple)
        rows, columns = self.grid(height, width)
        scale = self.scale
        blended = image.new_zeros((*image.shape[:2], scale * padded.shape[-2], scale * padded.shape[-1]))
        for row in rows:
            for column in columns:
                tile = padded[..., row.start : row.stop, column.start : column.stop].contiguous()
                weight = (row.weight[:, None] * column.weight).to(image.device)
                weight = weight.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
                target = blended[..., scale * row.start : scale * row.stop, scale * column.start : scale * column.stop]
                with torch.no_grad():
                    target += weight * self.network(tile)
                self.on_tile()
        return blended[..., : scale * height, : scale * width].clamp(0, 1)

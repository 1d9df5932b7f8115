"""Fusion of the decoder's feature map with a skip connection; both inputs and the output are (B, C, H, W)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import TimeCode
from bidiffsr_arch.archs.recompute import with_recomputed_input
from bidiffsr_arch.archs.rescale import ConvBuilder


class Fusion(nn.Module, ABC):
    """Fuses the decoder's feature map x with a skip connection."""

    @abstractmethod
    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """Fuse x and skip, both (B, C, H, W), to (B, C, H, W)."""


class CSFusion(Fusion):
    """Channel-shuffle fusion (Chen et al. 2024, sec. 3.4): ``conv1([x_odd | skip_even]) + conv2([x_even | skip_odd])``.

    Channels are counted from 0. Each convolution gets half the channels of x and half of those of skip, because the
    value ranges of x and skip differ.
    """

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv_1 = conv(channels, channels, 1)
        self.biconv_2 = conv(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """See `Fusion.forward`."""
        # The gradient of unbind takes one pass over memory; that of slices fills a whole map with zeros first.
        x_even, x_odd = x.unflatten(1, (-1, 2)).unbind(2)
        skip_even, skip_odd = skip.unflatten(1, (-1, 2)).unbind(2)
        # The encoder's next layer stores skip anyway, so recomputing the shuffled inputs stores only x in addition.
        # Neither x nor skip may be changed in place.
        y = with_recomputed_input(
            lambda: torch.cat([x_odd, skip_even], dim=1), lambda s1: self.biconv_1(s1, time.group)
        )
        return y.add_(
            with_recomputed_input(
                lambda: torch.cat([x_even, skip_odd], dim=1), lambda s2: self.biconv_2(s2, time.group)
            )
        )


class SplitFusion(Fusion):
    """``conv1(x) + conv2(skip)``."""

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv_1 = conv(channels, channels, 1)
        self.biconv_2 = conv(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """See `Fusion.forward`."""
        return self.biconv_1(x, time.group) + self.biconv_2(skip, time.group)


class ConcatFusion(Fusion):
    """``conv([x | skip])``, 2C -> C; the convolution changes the width, so it has no identity shortcut."""

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv = conv(2 * channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """See `Fusion.forward`."""
        return self.biconv(torch.cat([x, skip], dim=1), time.group)


class AddFusion(Fusion):
    """``x + skip``, without a convolution."""

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """See `Fusion.forward`."""
        return x + skip


FUSIONS: dict[str, type[Fusion]] = {"cs": CSFusion, "split": SplitFusion, "concat": ConcatFusion, "add": AddFusion}

"""How the decoder takes in a skip connection: both inputs and the output are (B, C, H, W)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import TimeCode
from bidiffsr_arch.archs.feed import feed
from bidiffsr_arch.archs.rescale import MakeConv


class Fusion(nn.Module, ABC):
    """Joins the decoder's features x with the newest skip."""

    @abstractmethod
    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        """x, skip: (B, C, H, W) -> (B, C, H, W)."""


class CSFusion(Fusion):
    """Channel-shuffle fusion (Chen et al. 2024, sec. 3.4): every second channel changes sides, so that both
    convolutions see both ranges.

    ``conv1([x_odd | skip_even]) + conv2([x_even | skip_odd])``, channels counted from 0.
    """

    def __init__(self, channels: int, conv: MakeConv) -> None:
        super().__init__()
        self.biconv_1 = conv(channels, channels, 1)
        self.biconv_2 = conv(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        # The gradient of unbind is one pass; that of a slice is a whole map of zeros first.
        x_even, x_odd = x.unflatten(1, (-1, 2)).unbind(2)
        skip_even, skip_odd = skip.unflatten(1, (-1, 2)).unbind(2)
        # The encoder's next layer keeps the skip in any case, so that x is all that two convolutions keep. Nothing may
        # change either of them in place.
        y = feed(lambda: torch.cat([x_odd, skip_even], dim=1), lambda s1: self.biconv_1(s1, time.group))
        return y.add_(feed(lambda: torch.cat([x_even, skip_odd], dim=1), lambda s2: self.biconv_2(s2, time.group)))


class SplitFusion(Fusion):
    """``conv1(x) + conv2(skip)``."""

    def __init__(self, channels: int, conv: MakeConv) -> None:
        super().__init__()
        self.biconv_1 = conv(channels, channels, 1)
        self.biconv_2 = conv(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        return self.biconv_1(x, time.group) + self.biconv_2(skip, time.group)


class ConcatFusion(Fusion):
    """``conv([x | skip])``, 2C -> C; the widths differ, so there is no identity shortcut."""

    def __init__(self, channels: int, conv: MakeConv) -> None:
        super().__init__()
        self.biconv = conv(2 * channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        return self.biconv(torch.cat([x, skip], dim=1), time.group)


class AddFusion(Fusion):
    """``x + skip``, no convolution."""

    def __init__(self, channels: int, conv: MakeConv) -> None:
        super().__init__()

    def forward(self, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
        return x + skip


FUSIONS: dict[str, type[Fusion]] = {"cs": CSFusion, "split": SplitFusion, "concat": ConcatFusion, "add": AddFusion}

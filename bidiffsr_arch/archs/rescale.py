"""Down- and up-sampling by 2 in a 1-bit UNet: CP-Down, CP-Up and their baselines.

The convolutions of CP-Down and CP-Up keep the width, so they have identity shortcuts.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import TimeCode

ConvBuilder = Callable[[int, int, int], nn.Module]
"""(in_channels, out_channels, kernel_size) -> a convolution that is called with (x, timestep group)."""


class CPDown(nn.Module):
    """Consistent-pixel down-sampling, (B, C, H, W) -> (B, 2C, H/2, W/2) (Chen et al. 2024, sec. 3.3).

    Each half of the channels passes through a 1-bit convolution, the results are added, and PixelUnshuffle(2) moves
    pixels into channels.
    """

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv1 = conv(channels // 2, channels // 2, 3)
        self.biconv2 = conv(channels // 2, channels // 2, 3)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to (B, 2C, H/2, W/2)."""
        x1, x2 = x.chunk(2, dim=1)
        return F.pixel_unshuffle(self.biconv1(x1, time.group).add_(self.biconv2(x2, time.group)), 2)


class CPUp(nn.Module):
    """Consistent-pixel up-sampling, (B, C, H, W) -> (B, C/2, 2H, 2W) (Chen et al. 2024, sec. 3.3).

    The results of two 1-bit convolutions of x are concatenated, and PixelShuffle(2) moves channels into pixels.
    """

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv1 = conv(channels, channels, 3)
        self.biconv2 = conv(channels, channels, 3)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to (B, C/2, 2H, 2W)."""
        return F.pixel_shuffle(torch.cat([self.biconv1(x, time.group), self.biconv2(x, time.group)], dim=1), 2)


class PixelDown(nn.Module):
    """Baseline: a 1-bit convolution C -> C/2, then PixelUnshuffle(2): (B, C, H, W) -> (B, 2C, H/2, W/2)."""

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv = conv(channels, channels // 2, 3)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to (B, 2C, H/2, W/2)."""
        return F.pixel_unshuffle(self.biconv(x, time.group), 2)


class PixelUp(nn.Module):
    """Baseline: a 1-bit convolution C -> 2C, then PixelShuffle(2): (B, C, H, W) -> (B, C/2, 2H, 2W)."""

    def __init__(self, channels: int, conv: ConvBuilder) -> None:
        super().__init__()
        self.biconv = conv(channels, 2 * channels, 3)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to (B, C/2, 2H, 2W)."""
        return F.pixel_shuffle(self.biconv(x, time.group), 2)


RESCALERS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "cp": (CPDown, CPUp),
    "pixelshuffle": (PixelDown, PixelUp),
}

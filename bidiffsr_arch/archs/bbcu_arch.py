"""A 1-bit super-resolution network without diffusion: SRResNet (Ledig et al. 2017) built from basic binary convolution
units (BBCU, Xia et al., ICLR 2023)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.binary import BINARIZERS, Binarize, BinaryConv2d
from bidiffsr_arch.errors import InputError, choose


class BinaryUp(nn.Module):
    """Upsampling by 2: four parallel 1-bit convolutions, concatenated, then PixelShuffle(2).

    Each convolution keeps the width and therefore has an identity shortcut, which a single convolution C -> 4C could
    not have.
    """

    def __init__(self, channels: int, conv: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, C, 2H, 2W)."""
        return F.pixel_shuffle(torch.cat([conv(x) for conv in self.convs], dim=1), 2)


class BBCUNet(nn.Module):
    """1-bit super-resolution in one call: ``tail(up(body(h) + h)) + bilinear(x)`` with ``h = head(x)``.

    The first and the last convolution are full precision, all others 1-bit. It has the arguments of BasicSR's MSRResNet
    and is trained by BasicSR's SRModel, too.

    Args:
        num_in_ch: channels of the image.
        num_out_ch: channels of the result; equal to num_in_ch.
        num_feat: width.
        num_block: blocks of two 1-bit convolutions, each with its own shortcut.
        upscale: scale, a power of two.
        binarizer: a row of `bidiffsr_arch.binary.BINARIZERS`.
        binarize: all | activations; with ``activations`` weights stay real, as in the first of two stages of training.
    Raises:
        InputError: an argument is out of range or unknown; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        binarizer: str = "bbcu",
        binarize: Binarize = "all",
    ) -> None:
        super().__init__()
        conv = partial(BinaryConv2d, method=choose("binarizer", binarizer, BINARIZERS), binarize=binarize)
        if upscale < 1 or upscale & (upscale - 1):
            raise InputError(f"expected upscale to be a power of two, such as 2 or 4, got {upscale}")
        if num_in_ch != num_out_ch:
            raise InputError(f"expected num_out_ch to equal num_in_ch, {num_in_ch}, got {num_out_ch}")
        if min(num_in_ch, num_feat, num_block) < 1:
            raise InputError(
                f"expected num_in_ch, num_feat and num_block of 1 or more, got {num_in_ch}, {num_feat}, {num_block}"
            )
        self.upscale = upscale
        self.head = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(conv(num_feat, num_feat, 3) for _ in range(2 * num_block)))
        self.up = nn.Sequential(*(BinaryUp(num_feat, conv) for _ in range(upscale.bit_length() - 1)))
        self.tail = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: low-resolution image, (B, C, H, W) in [0, 1] -> (B, C, upscale * H, upscale * W)."""
        h = self.head(x)
        return self.tail(self.up(self.body(h) + h)) + upsample(x, self.upscale)


def upsample(x: Tensor, scale: int) -> Tensor:
    """Bilinear interpolation, (B, C, H, W) -> (B, C, scale H, scale W); the network predicts its residual."""
    return x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)

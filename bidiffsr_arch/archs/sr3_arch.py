"""SR3's UNet (Saharia et al. 2021) in full precision: the upper bound of quality in the paper's Table 2."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import (
    NormSwishConv,
    PlainConv2d,
    ResBlockAttention,
    as_times,
    check_patches,
    check_size,
    image_to_patches,
    patches_to_image,
    tile_side,
    time_embedding,
)
from bidiffsr_arch.errors import InputError


class AddTime(nn.Module):
    """``x + Linear(embedding)``, broadcast over pixels."""

    def __init__(self, time_channels: int, channels: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(time_channels, channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Add the embedding (B, time_channels) to x (B, channels, H, W)."""
        return x + self.noise_func(embedding)[:, :, None, None]


class ResBlock(nn.Module):
    """``shortcut(x) + block2(block1(x) + Linear(time))``; the shortcut is a 1x1 convolution where the width changes."""

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int, norm_groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.noise_func = AddTime(time_channels, out_channels)
        self.block1 = NormSwishConv(in_channels, out_channels, norm_groups)
        self.block2 = NormSwishConv(out_channels, out_channels, norm_groups, dropout=dropout)
        self.res_conv = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.block2(self.noise_func(self.block1(x), embedding)) + self.res_conv(x)


class Down(nn.Module):
    """Convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return self.conv(x)


class Up(nn.Module):
    """Nearest-neighbour up-sampling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class SR3UNet(nn.Module):
    """SR3's full-precision diffusion UNet, under SR3's parameter names. Arguments as in `BIDiffSRUNet`, without its
    1-bit ones.

    Args:
        zero_init: start with the last convolution at zero, so that an untrained network predicts 0.
        mid_attn: self-attention in the bottleneck.
        patch_size, input_scale, output_scale: as in `BIDiffSRUNet`.
    """

    early_updates = True  # see `bidiffsr_arch.training.early_updates`

    def __init__(
        self,
        in_channel: int = 6,
        out_channel: int = 3,
        inner_channel: int = 64,
        norm_groups: int = 16,
        channel_mults: Sequence[int] = (1, 2, 4, 8),
        attn_res: Sequence[int] = (),
        res_blocks: int = 2,
        dropout: float = 0.2,
        image_size: int = 256,
        zero_init: bool = False,
        mid_attn: bool = True,
        patch_size: int = 1,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_patches(patch_size, input_scale=input_scale, output_scale=output_scale)
        widths = [inner_channel * mult for mult in channel_mults]
        sizes = [image_size // 2**level for level in range(len(widths))]
        if inner_channel % 2 or any(width % norm_groups for width in [inner_channel, *widths]):
            raise InputError(
                f"expected an even inner_channel, and norm_groups to divide the widths {widths}, got {inner_channel} "
                f"and {norm_groups}"
            )
        self.in_channel, self.patch_size = in_channel, patch_size
        self.input_scale, self.output_scale = input_scale, output_scale
        self.multiple = patch_size * 2 ** (len(widths) - 1)

        def res_block(in_channels: int, out_channels: int, attention: bool) -> ResBlockAttention:
            block = ResBlock(in_channels, out_channels, inner_channel, norm_groups, dropout)
            return ResBlockAttention(block, out_channels, norm_groups, attention)

        self.noise_level_mlp = time_embedding(inner_channel)

        self.downs = nn.ModuleList([PlainConv2d(in_channel * patch_size**2, inner_channel, 3)])
        skips, channels = [inner_channel], inner_channel
        for level, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            for _ in range(res_blocks):
                self.downs.append(res_block(channels, width, size in attn_res))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.downs.append(Down(channels))
                skips.append(channels)

        self.mid = nn.ModuleList([res_block(channels, channels, mid_attn), res_block(channels, channels, False)])

        self.ups = nn.ModuleList()
        for level, (width, size) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            for _ in range(res_blocks + 1):
                self.ups.append(res_block(channels + skips.pop(), width, size in attn_res))
                channels = width
            if level > 0:
                self.ups.append(Up(channels))

        self.final_conv = NormSwishConv(channels, out_channel * patch_size**2, norm_groups, zero_init=zero_init)
        self.tile_side = tile_side(self, inner_channel / patch_size**2)

    def forward(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """See `BIDiffSRUNet.forward`; `time` may also be SR3's own noise level, sqrt(alpha_bar)."""
        check_size(x_t, self.multiple)
        embedding = self.noise_level_mlp(as_times(time, x_t.shape[0]).to(x_t.dtype))
        x = image_to_patches(torch.cat([condition, x_t], dim=1), self.patch_size, self.input_scale)
        skips = []
        for layer in self.downs:
            x = layer(x, embedding)
            skips.append(x)
        for layer in self.mid:
            x = layer(x, embedding)
        for layer in self.ups:
            x = layer(torch.cat([x, skips.pop()], dim=1) if isinstance(layer, ResBlockAttention) else x, embedding)
        return patches_to_image(self.final_conv(x), self.patch_size, self.output_scale)

"""BI-DiffSR's UNet (Chen et al., NeurIPS 2024): a diffusion UNet with 1-bit convolutions.

Every ablation of the paper is an argument of the constructor.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import (
    NormSwishConv,
    PlainConv2d,
    ResBlockAttention,
    TimeCode,
    as_times,
    check_patches,
    check_size,
    image_to_patches,
    norm_swish,
    patches_to_image,
    tile_side,
    time_embedding,
)
from bidiffsr_arch.archs.fusion import FUSIONS, Fusion
from bidiffsr_arch.archs.norm_swish import norm_swish_then
from bidiffsr_arch.archs.pretrained import Pretrained
from bidiffsr_arch.archs.rescale import RESCALERS, ConvBuilder
from bidiffsr_arch.binary import BINARIZERS, Binarize, Binarizer, BinaryConv2d, timestep_group
from bidiffsr_arch.errors import InputError, choose


class Block(nn.Module):
    """``conv(Dropout(Swish(GroupNorm(x))))``; the width stays C."""

    def __init__(self, channels: int, norm_groups: int, conv: ConvBuilder, dropout: float = 0.0) -> None:
        super().__init__()
        self.block = nn.Sequential(*norm_swish(channels, norm_groups, dropout))
        self.conv = conv(channels, channels, 3)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return norm_swish_then(self.block, x, lambda h: self.conv(h, time.group))


class ResBlock(nn.Module):
    """``x + block2(block1(x) + Linear(Swish(time)))``.

    The width never changes, so every 1-bit convolution has its identity shortcut.
    """

    def __init__(self, channels: int, time_channels: int, norm_groups: int, conv: ConvBuilder, dropout: float) -> None:
        super().__init__()
        self.timestep_func = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, channels))
        self.block1 = Block(channels, norm_groups, conv)
        self.block2 = Block(channels, norm_groups, conv, dropout)

    def forward(self, x: Tensor, time: TimeCode) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        # In place, because no layer needs its own result for the backward pass.
        h = self.block1(x, time).add_(self.timestep_func(time.embedding)[:, :, None, None])
        return self.block2(h, time).add_(x)


class BIDiffSRUNet(Pretrained, nn.Module):
    """1-bit diffusion UNet. Its state dict has the reference's parameter names.

    Args:
        in_channel: channels of condition and noisy image together.
        out_channel: channels of the prediction.
        inner_channel: width of the outermost level.
        norm_groups: groups of every GroupNorm.
        channel_mults: width of each level in units of `inner_channel`; each must be twice the previous one, because
            CP-Down doubles the width.
        attn_res: nominal resolutions (``image_size / 2^level``) whose ResBlocks are followed by self-attention.
        res_blocks: ResBlocks per level in the encoder; the decoder has one more.
        dropout: dropout probability before each ResBlock's second convolution.
        image_size: nominal image size in pixels, to which `attn_res` and `fp_res` refer; other sizes work.
        fp_res: nominal resolutions whose decoder ResBlocks and fusions stay full precision.
        total_step: number T of training timesteps.
        dynamic_group: number K of timestep groups.
        binarizer: a row of `bidiffsr_arch.binary.BINARIZERS`.
        rescale: cp | pixelshuffle.
        fusion: cs | split | concat | add.
        identity: identity shortcut around 1-bit convolutions, if the binarizer has one.
        tar: one bias before the sign per timestep group; if false, one for all timesteps.
        taa: one RPReLU per timestep group; if false, one for all timesteps.
        zero_init: initialise the last convolution with zeros, so that an untrained network predicts 0.
        mid_attn: self-attention in the bottleneck. Its cost grows with the square of the number of pixels there, so set
            it to false in networks with few levels.
        patch_size: side P of the patches whose pixels become channels before the first convolution (space-to-depth) and
            pixels again after the last. All levels work at 1/P of the resolution; `image_size`, `attn_res` and `fp_res`
            still count the image's pixels.
        input_scale: factor of both inputs, for data whose standard deviation is far from 1 (c_in of Karras et al.
            2022).
        output_scale: factor of the prediction, for targets whose standard deviation is far from 1 (their c_out).
            Otherwise Adam's steps in the last layer overshoot small targets.
        binarize: all | activations; with ``activations`` weights stay real, as in the first of two stages of training.
    Raises:
        InputError: the arguments do not fit together; the message says why.
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
        fp_res: Sequence[int] = (256, 128),
        total_step: int = 2000,
        dynamic_group: int = 5,
        binarizer: str = "bidiffsr",
        rescale: str = "cp",
        fusion: str = "cs",
        identity: bool = True,
        tar: bool = True,
        taa: bool = True,
        zero_init: bool = False,
        mid_attn: bool = True,
        patch_size: int = 1,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        binarize: Binarize = "all",
    ) -> None:
        super().__init__()
        method = choose("binarizer", binarizer, BINARIZERS)
        down, up = choose("rescale", rescale, RESCALERS)
        fuse = choose("fusion", fusion, FUSIONS)
        _check(inner_channel, norm_groups, channel_mults, dynamic_group, binarizer, method, tar, taa)
        check_patches(patch_size, input_scale=input_scale, output_scale=output_scale)
        self.total_step, self.dynamic_group = total_step, dynamic_group
        self.in_channel, self.patch_size = in_channel, patch_size
        self.input_scale, self.output_scale = input_scale, output_scale
        self.multiple = patch_size * 2 ** (len(channel_mults) - 1)

        binary = partial(
            BinaryConv2d,
            method=method,
            shift_groups=dynamic_group if tar else 1,
            rprelu_groups=dynamic_group if taa else 1,
            identity=identity,
            binarize=binarize,
        )
        widths = [inner_channel * mult for mult in channel_mults]
        sizes = [image_size // 2**level for level in range(len(widths))]

        def res_block(width: int, conv: ConvBuilder, attention: bool) -> ResBlockAttention:
            block = ResBlock(width, inner_channel, norm_groups, conv, dropout)
            return ResBlockAttention(block, width, norm_groups, attention)

        self.timestep_level_mlp = time_embedding(inner_channel)

        self.downs = nn.ModuleList([PlainConv2d(in_channel * patch_size**2, inner_channel, 3)])
        for level, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            self.downs.extend(res_block(width, binary, size in attn_res) for _ in range(res_blocks))
            if level < len(widths) - 1:
                self.downs.append(down(width, binary))

        self.mid = nn.ModuleList([res_block(widths[-1], binary, mid_attn), res_block(widths[-1], binary, False)])

        self.ups = nn.ModuleList()
        for level, (width, size) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            conv = PlainConv2d if size in fp_res else binary
            for _ in range(res_blocks + 1):
                self.ups.extend([fuse(width, conv), res_block(width, conv, size in attn_res)])
            if level > 0:
                self.ups.append(up(width, binary))

        self.final_conv = NormSwishConv(inner_channel, out_channel * patch_size**2, norm_groups, zero_init=zero_init)
        self.tile_side = tile_side(self, inner_channel / patch_size**2)

    def forward(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """Predict the noise, the clean image or the velocity, as trained.

        Args:
            x_t: noisy image, (B, 3, H, W); H and W multiples of ``patch_size 2^(levels - 1)``.
            condition: upsampled LR image, same shape.
            time: timestep of each sample in 0..T-1, (B,) or (B, 1), integer or float.
        Returns:
            (B, out_channel, H, W).
        Raises:
            InputError: H or W is not such a multiple, or time has another shape.
        """
        check_size(x_t, self.multiple)
        time = as_times(time, x_t.shape[0])
        code = TimeCode(
            self.timestep_level_mlp(time.to(x_t.dtype)), timestep_group(time, self.total_step, self.dynamic_group)
        )
        x = image_to_patches(torch.cat([condition, x_t], dim=1), self.patch_size, self.input_scale)
        skips = []
        for layer in self.downs:
            x = layer(x, code)
            skips.append(x)
        for layer in self.mid:
            x = layer(x, code)
        for layer in self.ups:
            x = layer(x, skips.pop(), code) if isinstance(layer, Fusion) else layer(x, code)
        return patches_to_image(self.final_conv(x), self.patch_size, self.output_scale)


def _check(
    inner_channel: int,
    norm_groups: int,
    channel_mults: Sequence[int],
    dynamic_group: int,
    binarizer: str,
    method: Binarizer,
    tar: bool,
    taa: bool,
) -> None:
    """Raise InputError for arguments that do not fit together; the message says why."""
    widths = [inner_channel * mult for mult in channel_mults]
    if not widths or any(width != widths[0] << level for level, width in enumerate(widths)):
        raise InputError(
            f"expected channel_mults to double from level to level, as widths do in CP-Down, got {list(channel_mults)}"
        )
    if any(width % norm_groups for width in widths):
        raise InputError(f"expected norm_groups to divide the widths {widths}, got {norm_groups}")
    if inner_channel % 2:
        raise InputError(
            f"expected an even inner_channel, as rescaling, fusion and time embedding halve it, got {inner_channel}"
        )
    if dynamic_group < 1:
        raise InputError(f"expected dynamic_group to be 1 or more, got {dynamic_group}")
    if tar and not method.shift:
        raise InputError(
            f"expected tar: false with binarizer {binarizer}, which has no bias before its sign, got tar: true"
        )
    if taa and not method.rprelu:
        raise InputError(f"expected taa: false with binarizer {binarizer}, which has no RPReLU, got taa: true")

"""SR3 with this package's full-precision kernels: no bits at all, to tell the gain of the bits from the kernels'."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import (
    ResBlockAttention,
    SelfAttention,
    image_to_patches,
    patches_to_image,
)
from bidiffsr_arch.archs.sr3_arch import Down, SR3UNet
from bidiffsr_arch.packed.backends import choose_backend
from bidiffsr_arch.packed.layers import Attention, Maker, PlainConv3x3
from bidiffsr_arch.packed.layout import pad_last, padded
from bidiffsr_arch.packed.workspace import Workspace


class ResBlock:
    """``shortcut(x) + block2(block1(x) + Linear(time))``, then attention where the level has it."""

    def __init__(self, make: Maker, name: str, module: ResBlockAttention) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        inner = f"{name}.res_block"
        blocks = [getattr(module.res_block, part).block for part in ("block1", "block2")]
        self.norms = [make.group_norm(f"{inner}.block{i}.block.0", block[0]) for i, block in enumerate(blocks, 1)]
        self.convs = [PlainConv3x3(make, f"{inner}.block{i}.block.3") for i in (1, 2)]
        self.time = module.res_block.noise_func.noise_func
        self.res_conv = None
        if isinstance(module.res_block.res_conv, nn.Conv2d):
            weight = make.array(f"{inner}.res_conv.weight")[:, :, 0, 0]
            self.res_conv = self.backend.pointwise_weight(np.ascontiguousarray(weight))
            self.res_bias = pad_last(make.array(f"{inner}.res_conv.bias"))
        attention = isinstance(module.attn, SelfAttention)
        self.attention = Attention(make, f"{name}.attn", module.attn) if attention else None

    def __call__(self, x: np.ndarray, embedding: Tensor) -> np.ndarray:
        height, width, _ = x.shape
        shape = (height, width, padded(self.convs[0].filters))
        norm, out = self.backend.group_norm, self.workspace.take(shape)
        with self.workspace.maps(shape) as (h,):
            gains = norm(self.norms[0], self.backend.sums(x), height * width)
            sums = self.convs[0](x, None, h, norm=gains, added=self.time(embedding)[0].numpy())
            gains = norm(self.norms[1], sums, height * width)
            shortcut = x
            if self.res_conv is not None:
                self.backend.pointwise(x, self.res_conv, self.res_bias, out)
                shortcut = out
            sums = self.convs[1](h, None, out, norm=gains, residual=shortcut)
        if self.attention is not None:
            self.attention(out, sums)
        return out


class SR3OwnKernels:
    """Called as the `SR3UNet` that it is made from, with one sample."""

    def __init__(self, network: SR3UNet, backend: str | None = None) -> None:
        state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        self.network, self.backend, self.workspace = network, choose_backend(backend), Workspace()
        make = Maker(state, self.backend, self.workspace)
        self.first = PlainConv3x3(make, "downs.0")
        self.blocks: dict[nn.Module, ResBlock | PlainConv3x3] = {}
        for name, module in network.named_modules():
            if isinstance(module, ResBlockAttention):
                self.blocks[module] = ResBlock(make, name, module)
            elif name.startswith("ups") and name.endswith(".conv"):
                self.blocks[module] = PlainConv3x3(make, name)
        self.final_norm = make.group_norm("final_conv.block.0", network.final_conv.block[0])
        self.final_conv = PlainConv3x3(make, "final_conv.block.3")

    @torch.inference_mode()
    def __call__(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        self.backend.begin()
        self.workspace.begin(tuple(x_t.shape[-2:]))
        embedding = self.network.noise_level_mlp(time.float())
        patches = image_to_patches(
            torch.cat([condition, x_t], 1), self.network.patch_size, self.network.input_scale
        )
        pixels = pad_last(patches[0].permute(1, 2, 0).contiguous().numpy())
        x = self.workspace.take((*pixels.shape[:2], padded(self.first.filters)))
        self.first(pixels, None, x)
        skips = [x]
        for module in list(self.network.downs)[1:]:
            x = self._strided(module, x) if isinstance(module, Down) else self.blocks[module](x, embedding)
            skips.append(x)
        for module in self.network.mid:
            before, x = x, self.blocks[module](x, embedding)
            if before is not skips[-1]:
                self.workspace.give(before)
        for module in self.network.ups:
            if isinstance(module, ResBlockAttention):
                skip = skips.pop()
                both = np.concatenate([x, skip], axis=2)
                self.workspace.give(skip)
                self.workspace.give(x)
                x = self.blocks[module](both, embedding)
            else:
                large = np.ascontiguousarray(x.repeat(2, axis=0).repeat(2, axis=1))
                self.workspace.give(x)
                x = self.workspace.take(large.shape)
                self.blocks[module.conv](large, None, x)
        height, width, _ = x.shape
        norm = self.backend.group_norm(self.final_norm, self.backend.sums(x), height * width)
        out = self.workspace.take((height, width, padded(self.final_conv.filters)))
        self.final_conv(x, None, out, norm=norm)
        result = torch.from_numpy(out)[..., : self.final_conv.filters].permute(2, 0, 1)[None].contiguous()
        self.workspace.give(x)
        self.workspace.give(out)
        return patches_to_image(result, self.network.patch_size, self.network.output_scale)

    def _strided(self, module: Down, x: np.ndarray) -> np.ndarray:
        conv = module.conv
        result = F.conv2d(torch.from_numpy(x).permute(2, 0, 1)[None], conv.weight, conv.bias, stride=2, padding=1)
        out = self.workspace.take((*result.shape[2:], result.shape[1]))
        out[...] = result[0].permute(1, 2, 0).numpy()
        return out

"""The layers that fuse a decoder's map with its skip connection: 1-bit, in full precision, or a sum."""

import numpy as np
import torch

from bidiffsr_arch.archs.fusion import AddFusion, ConcatFusion, CSFusion, Fusion, SplitFusion
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.packed.backends import Map
from bidiffsr_arch.packed.layers import LayerBuilder, StepContext, binary_convs
from bidiffsr_arch.packed.layout import pad_last


class BinaryFusion:
    """Channel-shuffle, split or concatenating fusion by 1x1 1-bit convolutions. Overwrites x."""

    def __init__(self, builder: LayerBuilder, name: str, module: Fusion) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.convs = binary_convs(builder, name, module)
        self.kind = type(module)
        self.channels = self.convs[0].filters

    def __call__(self, x: Map, skip: Map, step: StepContext) -> np.ndarray:
        """Returns the sums of the new x."""
        if self.kind is SplitFusion:
            self.convs[0](x, step, x)
            return self.convs[1](skip, step, x, residual=x)
        if self.kind is ConcatFusion:
            with self.arena.maps((*x.shape[:2], 2 * self.channels)) as (both,):
                both[..., : self.channels] = x[..., : self.channels]
                both[..., self.channels : 2 * self.channels] = skip[..., : self.channels]
                return self.convs[0](both, step, x)
        shape = (*x.shape[:2], self.channels)
        with self.arena.maps(shape, shape) as (s1, s2):
            self.backend.exchange(x, skip, self.channels, s1, s2)
            self.convs[0](s1, step, x)
            return self.convs[1](s2, step, x, residual=x)


class PlainFusion:
    """Fusion in full precision: every channel order is ``x A + skip B + bias`` with two matrices. Overwrites x."""

    def __init__(self, builder: LayerBuilder, name: str, module: Fusion) -> None:
        self.backend = builder.backend
        if isinstance(module, ConcatFusion):
            weight, bias = builder.array(f"{name}.biconv.weight")[:, :, 0, 0], builder.array(f"{name}.biconv.bias")
            half = weight.shape[1] // 2
            from_x, from_skip = weight[:, :half], weight[:, half:]
        else:
            first, second = (builder.array(f"{name}.biconv_{i}.weight")[:, :, 0, 0] for i in (1, 2))
            bias = builder.array(f"{name}.biconv_1.bias") + builder.array(f"{name}.biconv_2.bias")
            from_x, from_skip = first, second
            if isinstance(module, CSFusion):
                half = first.shape[1] // 2
                from_x, from_skip = np.empty_like(first), np.empty_like(first)
                from_x[:, 1::2], from_skip[:, 0::2] = first[:, :half], first[:, half:]
                from_x[:, 0::2], from_skip[:, 1::2] = second[:, :half], second[:, half:]
        self.weights = [self.backend.pointwise_weight(np.ascontiguousarray(weight)) for weight in (from_x, from_skip)]
        self.bias = pad_last(bias)

    def __call__(self, x: Map, skip: Map, step: StepContext) -> np.ndarray:
        """Returns the sums of the new x."""
        return self.backend.pointwise(x, self.weights[0], self.bias, x, other=skip, other_weight=self.weights[1])


class Addition:
    """``x + skip``. Overwrites x."""

    def __call__(self, x: Map, skip: Map, step: StepContext) -> None:
        """Returns None: the sums of the new x are not computed."""
        torch.from_numpy(x).add_(torch.from_numpy(skip))


def fusion(builder: LayerBuilder, name: str, module: Fusion) -> BinaryFusion | PlainFusion | Addition:
    """The packed layer of a fusion."""
    if isinstance(module, AddFusion):
        return Addition()
    binary = any(isinstance(child, BinaryConv2d) for child in module.children())
    return BinaryFusion(builder, name, module) if binary else PlainFusion(builder, name, module)

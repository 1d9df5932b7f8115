"""The layers that fuse a decoder's map with its skip: 1-bit, in full precision, or a sum."""

import numpy as np
import torch

from bidiffsr_arch.archs.fusion import AddFusion, ConcatFusion, CSFusion, Fusion, SplitFusion
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.packed.layers import BinaryConv, Maker, Moment
from bidiffsr_arch.packed.layout import pad_last, padded


class BinaryFusion:
    """Channel-shuffle, split or concatenating fusion by 1x1 1-bit convolutions; the result takes the place of x."""

    def __init__(self, make: Maker, name: str, module: Fusion) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        parts = ("biconv",) if isinstance(module, ConcatFusion) else ("biconv_1", "biconv_2")
        self.convs = [BinaryConv(make, f"{name}.{part}", getattr(module, part)) for part in parts]
        self.kind = type(module)
        self.channels = self.convs[0].filters

    def __call__(self, x: np.ndarray, skip: np.ndarray, moment: Moment) -> np.ndarray:
        """Returns the sums of the new x."""
        if self.kind is SplitFusion:
            self.convs[0](x, moment, x)
            return self.convs[1](skip, moment, x, residual=x)
        if self.kind is ConcatFusion:
            with self.workspace.maps((*x.shape[:2], padded(2 * self.channels))) as (both,):
                both[..., 2 * self.channels :] = 0
                both[..., : self.channels], both[..., self.channels : 2 * self.channels] = (
                    x[..., : self.channels],
                    skip[..., : self.channels],
                )
                return self.convs[0](both, moment, x)
        with self.workspace.maps(x.shape, x.shape) as (s1, s2):
            self.backend.exchange(x, skip, self.channels, s1, s2)
            self.convs[0](s1, moment, x)
            return self.convs[1](s2, moment, x, residual=x)


class PlainFusion:
    """The same in full precision: whatever channels go where, it is ``x A + skip B + bias`` with two matrices. The
    result takes the place of x.
    """

    def __init__(self, make: Maker, name: str, module: Fusion) -> None:
        self.backend = make.backend
        if isinstance(module, ConcatFusion):
            weight, bias = make.array(f"{name}.biconv.weight")[:, :, 0, 0], make.array(f"{name}.biconv.bias")
            half = weight.shape[1] // 2
            from_x, from_skip = weight[:, :half], weight[:, half:]
        else:
            first, second = (make.array(f"{name}.biconv_{i}.weight")[:, :, 0, 0] for i in (1, 2))
            bias = make.array(f"{name}.biconv_1.bias") + make.array(f"{name}.biconv_2.bias")
            from_x, from_skip = first, second
            if isinstance(module, CSFusion):
                half = first.shape[1] // 2
                from_x, from_skip = np.empty_like(first), np.empty_like(first)
                from_x[:, 1::2], from_skip[:, 0::2] = first[:, :half], first[:, half:]
                from_x[:, 0::2], from_skip[:, 1::2] = second[:, :half], second[:, half:]
        self.weights = [self.backend.pointwise_weight(np.ascontiguousarray(weight)) for weight in (from_x, from_skip)]
        self.bias = pad_last(bias)

    def __call__(self, x: np.ndarray, skip: np.ndarray, moment: Moment) -> np.ndarray:
        """Returns the sums of the new x."""
        return self.backend.pointwise(x, self.weights[0], self.bias, x, other=skip, other_weight=self.weights[1])


class Addition:
    """``x + skip``, in the place of x."""

    def __init__(self, make: Maker, name: str, module: AddFusion) -> None:
        """Nothing to build."""

    def __call__(self, x: np.ndarray, skip: np.ndarray, moment: Moment) -> None:
        torch.from_numpy(x).add_(torch.from_numpy(skip))


def fusion(make: Maker, name: str, module: Fusion) -> BinaryFusion | PlainFusion | Addition:
    """The packed layer of a fusion."""
    if isinstance(module, AddFusion):
        return Addition(make, name, module)
    binary = any(isinstance(child, BinaryConv2d) for child in module.children())
    return BinaryFusion(make, name, module) if binary else PlainFusion(make, name, module)

"""The baseline of training speed: a 1-bit network written as its formulas, differentiated by PyTorch's autograd.

It is neither optimised nor slowed down: signs get their surrogate gradients by the usual
``hard.detach() + soft - soft.detach()``, weights are binarized at every call, and all other operations are PyTorch's.
It computes with the network's own parameters, so both implementations can be compared step by step.
"""

import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.bidiffsr_arch import Block
from bidiffsr_arch.archs.blocks import NormSwishConv, TimeCode
from bidiffsr_arch.archs.fusion import CSFusion
from bidiffsr_arch.archs.norm_swish import Dropout, NormSwish
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d


def with_gradient_of(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard` with the gradient of `soft`."""
    return hard.detach() + soft - soft.detach()


def plus_or_minus_one(v: Tensor) -> Tensor:
    return torch.where(v >= 0, torch.ones_like(v), -torch.ones_like(v))


def by_masks(r: Tensor) -> Tensor:
    """-1 below -1, 2r + r² on [-1, 0), 2r - r² on [0, 1), +1 from 1 on, as in the code of Bi-Real Net and ReActNet.

    Each piece is combined with the result so far by a mask and its complement.
    """
    below, negative, inner = ((r < end).to(r.dtype) for end in (-1, 0, 1))
    first = -1 * below + (r * r + 2 * r) * (1 - below)
    second = first * negative + (-r * r + 2 * r) * (1 - negative)
    return second * inner + 1 * (1 - inner)


def by_indicators(r: Tensor) -> Tensor:
    """The same function in fewer operations: each piece times the indicator of its interval."""
    below, negative, inner = (r < -1).to(r.dtype), (r < 0).to(r.dtype), (r < 1).to(r.dtype)
    left = -below + (2 * r + r * r) * (negative - below)
    return left + (2 * r - r * r) * (inner - negative) + (1 - inner)


def by_selection(r: Tensor) -> Tensor:
    """The same function with `torch.where`."""
    left, right = 2 * r + r * r, 2 * r - r * r
    return torch.where(r < -1, -torch.ones_like(r), torch.where(r < 0, left, right)).where(r < 1, torch.ones_like(r))


def sign_of_weight(w: Tensor) -> Tensor:
    """The sign of w times the mean of |w| over each filter; gradient 1 where |w| <= 1, else 0."""
    scale = w.detach().abs().mean((1, 2, 3), keepdim=True)
    return with_gradient_of(scale * plus_or_minus_one(w), w.clamp(-1, 1))


def binary_conv(self: BinaryConv2d, x: Tensor, group: Tensor | None = None) -> Tensor:
    """``RPReLU_k(conv(sign(x + b_k), w_b)) + x``."""
    r = x + self.TaR.pick("bias", group)
    a = with_gradient_of(plus_or_minus_one(r), self.polynomial(r))
    z = F.conv2d(a, sign_of_weight(self.binary_conv.weight), padding=self.binary_conv.kernel_size // 2)
    z = z + self.TaA.pick("bias0", group)
    z = torch.where(z > 0, z, self.TaA.pick("slope", group) * z) + self.TaA.pick("bias1", group)
    return z + x if self.shortcut else z


def norm_swish(self: NormSwish, x: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


def dropout(self: Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, self.p, self.training)


def block(self: Block, x: Tensor, time: TimeCode) -> Tensor:
    return self.conv(self.block(x), time.group)


def norm_swish_conv(self: NormSwishConv, x: Tensor) -> Tensor:
    return self.block(x)


def shuffling_fusion(self: CSFusion, x: Tensor, skip: Tensor, time: TimeCode) -> Tensor:
    x_even, x_odd = x.unflatten(1, (-1, 2)).unbind(2)
    skip_even, skip_odd = skip.unflatten(1, (-1, 2)).unbind(2)
    s1, s2 = torch.cat([x_odd, skip_even], dim=1), torch.cat([x_even, skip_odd], dim=1)
    return self.biconv_1(s1, time.group) + self.biconv_2(s2, time.group)


FORMULAS = {
    BinaryConv2d: binary_conv,
    NormSwish: norm_swish,
    Dropout: dropout,
    Block: block,
    NormSwishConv: norm_swish_conv,
    CSFusion: shuffling_fusion,
}


def straight_line(network: nn.Module, polynomial: Callable[[Tensor], Tensor] = by_indicators) -> nn.Module:
    """Make the layers of a `BIDiffSRUNet` compute by the formulas above, in place.

    Args:
        polynomial: a function whose gradient, 2 + 2r on [-1, 0), 2 - 2r on [0, 1), else 0, is used for the sign.
    Raises:
        ValueError: the binarizer is not the paper's.
    """
    for module in network.modules():
        if isinstance(module, BinaryConv2d):
            if module.method != BINARIZERS["bidiffsr"]:
                raise ValueError(f"expected binarizer bidiffsr, got {module.method}")
            module.polynomial = polynomial
        if type(module) in FORMULAS:
            module.forward = types.MethodType(FORMULAS[type(module)], module)
    return network

"""A convolution of 1-bit activations with 1-bit weights, and what each binarizer puts around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.binary.bank import TimestepBias, TimestepRPReLU
from bidiffsr_arch.binary.convolve import Again, Counter, convolve, working_dtype
from bidiffsr_arch.binary.methods import Binarizer
from bidiffsr_arch.binary.sign import signs
from bidiffsr_arch.binary.weight import WEIGHTS

# Small first weights let signs settle within the first hundreds of steps of Adam at 1e-4; sign and scale are all that
# training sees.
INITIAL_WEIGHT = 1e-3


class Binarized(NamedTuple):
    """A weight's signs, bool (C_out, C_in, k, k) for conv2d or as a `Counter` packs them or both, and its scale,
    (C_out, 1, 1) or (1, 1, 1); without gradients."""

    scale: Tensor
    bits: Tensor | None = None
    packed: tuple[Tensor, ...] | None = None


class BinaryWeightConv2d(nn.Module):
    """Convolution of signs with binarized weights, zero padding (a padded tap adds 0), stride 1, no bias.

    Args:
        kernel_size: odd.
        activation: surrogate gradient of the input's sign, a key of `SURROGATES`.
        weight: a key of `WEIGHTS`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, activation: str, weight: str) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.activation, self.binarize = activation, weight
        self.rule = WEIGHTS[weight]
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.held: Binarized | None = None
        self.counter: Counter | None = None
        nn.init.uniform_(self.weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)

    @torch.no_grad()
    def binarized(self, v: Tensor, *, bits: bool = True, packed: bool = True) -> Binarized:
        """The weight binarized, for conv2d, for the counter if there is one that takes it, or for both.

        Args:
            v: ``rule.prepare(weight)``.
        """
        counter = self.counter if packed and self.counter is not None and self.counter.takes_weight(v) else None
        return Binarized(
            self.rule.scale(v), v >= 0 if bits else None, None if counter is None else counter.pack_weight(v)
        )

    def binary_weight(self) -> Tensor:
        """``scale * ±1``, shape (C_out, C_in, k, k), without a gradient."""
        scale, bits, _ = self.binarized(self.rule.prepare(self.weight.detach()), packed=False)
        return signs(bits, scale.dtype) * scale[..., None]

    def forward(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Again]:
        """x: (B, C_in, H, W), of which ``sign(x + shift)`` is convolved -> the result (B, C_out, H, W), and how to
        have it again."""
        v = self.rule.prepare(self.weight)
        counter = self.counter if self.counter is not None and self.counter.takes(x, shift, v) else None
        held = self.held or self.binarized(v, bits=counter is None, packed=counter is not None)
        return convolve(
            x,
            shift,
            v,
            (held.bits,) if counter is None else held.packed,
            held.scale,
            activation=self.activation,
            weight=self.rule.surrogate,
            progress=self.progress,
            counter=counter,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, weight={self.binarize}"


class BinaryConv2d(nn.Module):
    """``shortcut + RPReLU_k(BatchNorm(K * conv(sign(x + b_k), w_b)))``, each part where the binarizer has it.

    With the row ``bidiffsr`` this is the paper's BI-Conv (Chen et al. 2024, eq. 4 to 7).

    Args:
        kernel_size: odd; the picture keeps its size.
        method: a row of `BINARIZERS`.
        shift_groups: number K of biases before the sign (TaR); 1 is one bias for all timesteps.
        rprelu_groups: number K of RPReLUs after the convolution (TaA).
        identity: add the input where the method has a shortcut and the widths match.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        method: Binarizer,
        *,
        shift_groups: int = 1,
        rprelu_groups: int = 1,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.method = method
        self.shortcut = method.shortcut and identity and in_channels == out_channels
        self.TaR = TimestepBias(shift_groups, in_channels) if method.shift else None
        self.binary_conv = BinaryWeightConv2d(in_channels, out_channels, kernel_size, method.activation, method.weight)
        self.norm = nn.BatchNorm2d(out_channels) if method.norm else None
        self.TaA = TimestepRPReLU(rprelu_groups, out_channels) if method.rprelu else None

    def forward(self, x: Tensor, group: Tensor | None = None) -> Tensor:
        """x: (B, C_in, H, W); group: (B,) timestep group of each sample -> (B, C_out, H, W)."""
        shift = None if self.TaR is None else self.TaR.pick("bias", group)
        z, again = self.binary_conv(x, shift)
        if self.method.spatial_scale:
            z = z * self.spatial_scale(x)
        if self.norm is not None:
            z = self.norm(z)
        if self.TaA is not None:
            z = self.TaA(z, group) if self.norm is not None else self.TaA(z, group, again)
        if self.shortcut:
            z += x
        return z.to(working_dtype(x))

    @torch.no_grad()
    def spatial_scale(self, x: Tensor) -> Tensor:
        """XNOR-Net's K: k x k box average (zero padding, divided by k²) of the channel mean of ``|x|``, (B, 1, H, W),
        without gradient."""
        k = self.binary_conv.kernel_size
        return F.avg_pool2d(x.abs().mean(1, keepdim=True), k, stride=1, padding=k // 2, count_include_pad=True)


def set_progress(network: nn.Module, progress: float) -> None:
    """Tell the layers whose gradients sharpen during training (IR-Net) that the fraction `progress` in [0, 1] of it is
    done."""
    for module in network.modules():
        if isinstance(module, BinaryWeightConv2d):
            module.progress.fill_(progress)


@contextmanager
def held_weights(network: nn.Module) -> Iterator[None]:
    """Binarize every weight once, for all calls of the network meanwhile; the weights must not change in that time."""
    layers = [module for module in network.modules() if isinstance(module, BinaryWeightConv2d)]
    try:
        for layer in layers:
            with torch.no_grad():
                layer.held = layer.binarized(layer.rule.prepare(layer.weight))
        yield
    finally:
        for layer in layers:
            layer.held = None

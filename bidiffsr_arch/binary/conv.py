"""A convolution of 1-bit activations with 1-bit weights, and the layers that each binarizer adds around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bidiffsr_arch.binary.bank import TimestepBias, TimestepRPReLU
from bidiffsr_arch.binary.conv2d import ConvBackend, conv2d, working_dtype
from bidiffsr_arch.binary.convolve import BinaryConvBackend, ScaledSums, convolve
from bidiffsr_arch.binary.methods import Binarize, Binarizer
from bidiffsr_arch.binary.sign import SURROGATES, signs_of
from bidiffsr_arch.binary.weight import WEIGHTS
from bidiffsr_arch.errors import choose

# Only the sign and the scale of a weight matter. With small initial weights, Adam at a learning rate of 1e-4 can flip
# signs within the first hundreds of steps.
INITIAL_WEIGHT = 1e-3


class BinarizedWeight(NamedTuple):
    """A weight as ``scale * ±1``, without gradients.

    scale: (C_out, 1, 1) or (1, 1, 1).
    signs: for conv2d, one tensor, bool (C_out, C_in, k, k), true for +1; empty if not needed.
    packed: the same signs as a `BinaryConvBackend` packs them; empty without a backend, or if not needed.
    """

    scale: Tensor
    signs: tuple[Tensor, ...] = ()
    packed: tuple[Tensor, ...] = ()


class SignConv2d(nn.Module):
    """Convolution of signs, zero padding (a padded tap adds 0), stride 1, no bias; subclasses define its weights.

    Args:
        kernel_size: odd.
        activation: surrogate gradient of the input's sign, a key of `SURROGATES`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, activation: str) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.activation = activation
        self.conv_backend: ConvBackend | None = None
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.progress: Tensor
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        nn.init.uniform_(self.weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)

    def extra_repr(self) -> str:
        """Arguments for `print(network)`."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"


class _Sign(torch.autograd.Function):
    """The sign of an activation, with a surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, surrogate: str, progress: Tensor) -> Tensor:
        ctx.surrogate = surrogate
        ctx.save_for_backward(r, progress)
        return signs_of(r)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return SURROGATES[ctx.surrogate](grad, *ctx.saved_tensors), None, None


class RealWeightConv2d(SignConv2d):
    """Convolution of signs with real weights, for the first of two stages of training. In the second stage a
    `BinaryWeightConv2d` starts from its weights (Martinez et al. 2020; ReActNet, Liu et al. 2020)."""

    def forward(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, None]:
        """Convolve ``sign(x + shift)`` with the weight; arguments as `BinaryWeightConv2d.forward`.

        Returns:
            The result, (B, C_out, H, W), and None, because it is stored for the backward pass, not recomputed.
        """
        activations = _Sign.apply(x if shift is None else x + shift, self.activation, self.progress)
        return conv2d(activations, self.weight, backend=self.conv_backend), None


class BinaryWeightConv2d(SignConv2d):
    """Convolution of signs with binarized weights.

    Args:
        weight: a key of `WEIGHTS`; the others are those of `SignConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, activation: str, weight: str) -> None:
        super().__init__(in_channels, out_channels, kernel_size, activation)
        self.binarize, self.rule = weight, WEIGHTS[weight]
        self.cached: BinarizedWeight | None = None
        self.backend: BinaryConvBackend | None = None

    @torch.no_grad()
    def binarized(self, v: Tensor, *, for_conv2d: bool = True, for_backend: bool = True) -> BinarizedWeight:
        """The binarized weight for conv2d, for the backend (if there is one that supports it), or for both.

        Args:
            v: ``rule.prepare(weight)``.
        """
        backend = self.backend if for_backend and self.backend and self.backend.supports_weight(v) else None
        return BinarizedWeight(
            self.rule.scale(v), (v >= 0,) if for_conv2d else (), backend.pack_weight(v) if backend else ()
        )

    def binary_weight(self) -> Tensor:
        """``scale * ±1``, shape (C_out, C_in, k, k), without a gradient."""
        v = self.rule.prepare(self.weight.detach())
        return signs_of(v, self.rule.scale(v)[..., None])

    def forward(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, ScaledSums]:
        """Convolve ``sign(x + shift)`` with the binary weight.

        Args:
            x: (B, C_in, H, W).
            shift: (B, C_in, 1, 1) or (1, C_in, 1, 1), or None.
        Returns:
            The result, (B, C_out, H, W), and the numbers from which it can be recomputed.
        """
        v = self.rule.prepare(self.weight)
        backend = self.backend if self.backend and self.backend.supports(x, shift, v) else None
        weight = self.cached or self.binarized(v, for_conv2d=backend is None, for_backend=backend is not None)
        return convolve(
            x,
            shift,
            v,
            weight.signs if backend is None else weight.packed,
            weight.scale,
            activation=self.activation,
            weight=self.rule.surrogate,
            progress=self.progress,
            backend=backend,
            gradients=self.conv_backend,
        )

    def extra_repr(self) -> str:
        """Arguments for `print(network)`."""
        return f"{super().extra_repr()}, weight={self.binarize}"


class BinaryConv2d(nn.Module):
    """``shortcut + RPReLU_k(BatchNorm(K * conv(sign(x + b_k), w_b)))``; the binarizer determines which parts exist.

    With the row ``bidiffsr`` this is the paper's BI-Conv (Chen et al. 2024, eq. 4 to 7).

    Args:
        kernel_size: odd; the feature map keeps its size.
        method: a row of `BINARIZERS`.
        shift_groups: number K of biases before the sign (TaR); 1 is one bias for all timesteps.
        rprelu_groups: number K of RPReLUs after the convolution (TaA).
        identity: add the input if the method has a shortcut and the widths match.
        binarize: all | activations; with ``activations`` weights stay real.
    Raises:
        InputError: `binarize` is neither.
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
        binarize: Binarize = "all",
    ) -> None:
        super().__init__()
        self.method = method
        self.shortcut = method.shortcut and identity and in_channels == out_channels
        self.TaR = TimestepBias(shift_groups, in_channels) if method.shift else None
        convs: dict[str, Callable[..., SignConv2d]] = {
            "all": partial(BinaryWeightConv2d, weight=method.weight),
            "activations": RealWeightConv2d,
        }
        conv = choose("binarize", binarize, convs)
        self.binary_conv = conv(in_channels, out_channels, kernel_size, method.activation)
        self.norm = nn.BatchNorm2d(out_channels) if method.norm else None
        self.TaA = TimestepRPReLU(rprelu_groups, out_channels) if method.rprelu else None

    def forward(self, x: Tensor, group: Tensor | None = None) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W); `group`, (B,), is the timestep group of each sample."""
        shift = None if self.TaR is None else self.TaR.pick("bias", group)
        z, sums = self.binary_conv(x, shift)
        if self.method.spatial_scale:
            z = z * self.spatial_scale(x)
        if self.norm is not None:
            z = self.norm(z)
        if self.TaA is not None:
            z = self.TaA(z, group) if self.norm is not None else self.TaA(z, group, sums)
        if self.shortcut:
            z += x
        return z.to(working_dtype(x))

    @torch.no_grad()
    def spatial_scale(self, x: Tensor) -> Tensor:
        """XNOR-Net's K, (B, 1, H, W), without gradient: the k x k box average (zero padding, divided by k²) of the
        channel mean of ``|x|``."""
        k = self.binary_conv.kernel_size
        return F.avg_pool2d(x.abs().mean(1, keepdim=True), k, stride=1, padding=k // 2, count_include_pad=True)


def set_progress(network: nn.Module, progress: float) -> None:
    """Set the fraction of training that is done, in [0, 1]; IR-Net's surrogate gradients become sharper with it."""
    for module in network.modules():
        if isinstance(module, SignConv2d):
            module.progress.fill_(progress)


@contextmanager
def cached_weights(network: nn.Module) -> Iterator[None]:
    """Cache binarized weights: each is computed once per context. Weights must not change within the context."""
    layers = [module for module in network.modules() if isinstance(module, BinaryWeightConv2d)]
    try:
        for layer in layers:
            with torch.no_grad():
                layer.cached = layer.binarized(layer.rule.prepare(layer.weight))
        yield
    finally:
        for layer in layers:
            layer.cached = None

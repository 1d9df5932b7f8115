"""1-bit layers of any network, packed: `pack_layer` takes a `BinaryConv2d`, or an `nn.Sequential` with some in it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import PlainConv2d
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.binary.bank import TimestepBank, TimestepRPReLU
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.backends import Affine, Map
from bidiffsr_arch.packed.backends.torch_backend import planes
from bidiffsr_arch.packed.layers import (
    BinaryConv,
    LayerBuilder,
    PlainConv1x1,
    PlainConv3x3,
    StepContext,
    batch_norm_affine,
)
from bidiffsr_arch.packed.layout import pad_last
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.state import packed_state


class Convolution:
    """A convolution that keeps the image's size, 1-bit or not; its result is a new map."""

    scale_factor = 1

    def __init__(self, builder: LayerBuilder, conv: BinaryConv | PlainConv3x3 | PlainConv1x1) -> None:
        self.arena, self.conv, self.filters = builder.arena, conv, conv.filters

    def __call__(self, x: Map, step: StepContext) -> Map:
        """Returns the new map."""
        out = self.arena.allocate((*x.shape[:2], self.filters))
        self.conv(x, step, out)
        return out


class BatchNorm:
    """A BatchNorm with its running statistics, in place."""

    scale_factor = 1

    def __init__(self, builder: LayerBuilder, name: str, module: nn.BatchNorm2d, channels: int) -> None:
        self.backend, self.filters = builder.backend, channels
        gain, bias = batch_norm_affine(builder, name, module)
        self.affine = Affine(pad_last(gain.astype("float32")), pad_last(bias.astype("float32")))

    def __call__(self, x: Map, step: StepContext) -> Map:
        """Returns x."""
        self.backend.normalise(x, self.affine, x, swish=False)
        return x


class RPReLU:
    """``PReLU(x + bias0) + bias1`` with the parameters of the timestep group, in place; a PReLU has no biases."""

    scale_factor = 1

    def __init__(self, builder: LayerBuilder, name: str, module: TimestepRPReLU | nn.PReLU, channels: int) -> None:
        self.filters = channels
        if isinstance(module, nn.PReLU):
            slope = builder.state[f"{name}.weight"].expand(channels)
            self.groups = [(torch.zeros(channels), slope, torch.zeros(channels))]
        else:
            banks = (builder.state[f"{name}.{part}"] for part in ("bias0", "slope", "bias1"))
            self.groups = list(zip(*banks, strict=True))

    def __call__(self, x: Map, step: StepContext) -> Map:
        """Returns x."""
        before, slope, after = self.groups[min(step.group, len(self.groups) - 1)]
        values = planes(x, self.filters)
        values.copy_(F.prelu(values + before[:, None, None], slope).add_(after[:, None, None]))
        return x


class Shuffle:
    """PixelShuffle; its result is a new map."""

    def __init__(self, builder: LayerBuilder, name: str, module: nn.PixelShuffle, channels: int) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        self.channels, self.scale_factor = channels, module.upscale_factor
        self.filters = channels // self.scale_factor**2

    def __call__(self, x: Map, step: StepContext) -> Map:
        """Returns the new map."""
        height, width, _ = x.shape
        out = self.arena.allocate((self.scale_factor * height, self.scale_factor * width, self.filters))
        if self.scale_factor == 2:
            self.backend.depth_to_space(x, self.channels, out)
        else:
            planes(out, self.filters).copy_(F.pixel_shuffle(planes(x, self.channels), self.scale_factor))
        return out


def _binary_conv(builder: LayerBuilder, name: str, module: BinaryConv2d, channels: int) -> Convolution:
    return Convolution(builder, BinaryConv(builder, name, module))


def _plain_conv(builder: LayerBuilder, name: str, module: nn.Conv2d, channels: int) -> Convolution:
    """A full-precision convolution of stride 1 that keeps the image's size."""
    kinds: dict[tuple[int, ...], Callable] = {(3, 3): PlainConv3x3, (1, 1): PlainConv1x1}
    kept = ("same", tuple(k // 2 for k in module.kernel_size))
    plain = (module.stride, module.dilation, module.groups, module.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
    if module.kernel_size not in kinds or not plain or module.padding not in kept:
        raise InputError(
            "expected convolutions of 1x1 or 3x3, stride 1, one group, and zero padding that keeps the size, to pack; "
            f"got {name}: {module}"
        )
    return Convolution(builder, kinds[module.kernel_size](builder, name))


LAYERS: dict[type[nn.Module], Callable[[LayerBuilder, str, Any, int], Any]] = {
    BinaryConv2d: _binary_conv,
    nn.Conv2d: _plain_conv,
    PlainConv2d: _plain_conv,
    nn.BatchNorm2d: BatchNorm,
    TimestepRPReLU: RPReLU,
    nn.PReLU: RPReLU,
    nn.PixelShuffle: Shuffle,
}
"""Packed layers by the exact class of the training module: a subclass may compute something else."""

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Modules that do nothing in inference."""


class PackedSequential(PackedNetwork):
    """Layers one after the other: (B, C, H, W) -> (B, C', H', W')."""

    def build(self, builder: LayerBuilder, network: nn.Sequential) -> None:
        """See `PackedNetwork.build`."""
        modules = list(_flat(network))
        self.in_channels = channels = _channels(modules)
        self.groups = max(_groups(module) for _, module in modules)
        self.layers = []
        for name, module in modules:
            if type(module) not in LAYERS:
                known = ", ".join(kind.__name__ for kind in LAYERS)
                raise InputError(f"expected layers of {known} to pack, got {name}: {type(module).__name__}")
            layer = LAYERS[type(module)](builder, name, module, channels)
            self.layers.append(layer)
            channels, self.scale_factor = layer.filters, self.scale_factor * layer.scale_factor
        self.out_channels = channels

    def forward(self, x: Tensor, group: Tensor | None = None) -> Tensor:
        """As `BinaryConv2d.forward`: x (B, C, H, W), group (B,) -> float32 (B, C', H', W').

        Raises:
            InputError: another number of channels, or no timestep groups where layers depend on them.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(f"expected x of shape (B, {self.in_channels}, H, W), got {tuple(x.shape)}")
        if group is None and self.groups > 1:
            raise InputError(f"expected the timestep group of each sample, of {self.groups} groups, got None")
        return self.run(x, x.new_zeros(len(x), dtype=torch.long) if group is None else group)

    def step_contexts(self, time: Tensor) -> list[StepContext]:
        """See `PackedNetwork.step_contexts`."""
        return [StepContext(group) for group in time.tolist()]

    def compute(self, x: Map, step: StepContext) -> Map:
        """See `PackedNetwork.compute`."""
        image = x
        for layer in self.layers:
            before, x = x, layer(x, step)
            if x is not before and before is not image:
                self.arena.release(before)
        if x is image:  # no layer made a new map
            x = self.arena.allocate((*image.shape[:2], self.out_channels))
            x[...] = image
        return x


def pack_layer(layer: nn.Module, backend: str | None = None) -> PackedSequential:
    """Pack a 1-bit layer for inference on a CPU; the layer is not changed.

    Args:
        layer: a `BinaryConv2d`, or an `nn.Sequential` of `BinaryConv2d`, `nn.BatchNorm2d`, RPReLU (`TimestepRPReLU`),
            `nn.PReLU`, `nn.PixelShuffle`, and `nn.Conv2d` of 1x1 or 3x3, which are computed in full precision.
        backend: numba-avx2 | numba-portable | torch; the fastest on this machine if None.
    Returns:
        A module with the layer's arguments: (B, C, H, W) -> (B, C', H', W'). 1-bit convolutions give the same integers
        as in float; results differ by the rounding of float32.
    Raises:
        InputError: there is no 1-bit layer, or a layer cannot be packed, for its class, stride or padding; it is named.
    """
    sequence = layer if isinstance(layer, nn.Sequential) else nn.Sequential(layer)
    if not any(isinstance(module, BinaryConv2d) for module in sequence.modules()):
        raise InputError(f"expected a BinaryConv2d, or a Sequential with one, to pack, got {type(layer).__name__}")
    return PackedSequential(sequence, packed_state(sequence), backend)


def _flat(sequence: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names and layers of a Sequential and of nested ones, without `IDENTITIES`."""
    for name, module in zip(sequence._modules, sequence, strict=True):
        if type(module) is nn.Sequential:
            yield from _flat(module, f"{prefix}{name}.")
        elif type(module) not in IDENTITIES:
            yield prefix + name, module


def _channels(modules: list[tuple[str, nn.Module]]) -> int:
    """Input channels of the first layer."""
    name, first = modules[0]
    first = first.binary_conv if isinstance(first, BinaryConv2d) else first
    for attribute in ("in_channels", "num_features", "channels"):
        if hasattr(first, attribute):
            return getattr(first, attribute)
    raise InputError(f"expected a first layer with a known number of channels to pack, got {name}: {first}")


def _groups(module: nn.Module) -> int:
    """Number of timestep groups of a layer."""
    return max((bank.groups for bank in module.modules() if isinstance(bank, TimestepBank)), default=1)

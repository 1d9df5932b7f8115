"""The layers of a packed network: built from the modules of training and the packed tensors, and run by a backend on
maps (H, W, padded C).

Layers that may be followed by a GroupNorm return the sums of their result, which saves a pass over the map.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.arena import Arena
from bidiffsr_arch.packed.backends import Affine, AnyBackend, GroupNorm, Map
from bidiffsr_arch.packed.layout import KERNEL_SIZES, pad_last


class StepContext(NamedTuple):
    """Timestep group of a sample, and the time embeddings that are added in ResBlocks, float32 (C,) by name of the
    block."""

    group: int = 0
    added: Mapping[str, np.ndarray] = {}


class LayerBuilder:
    """Builds layers from packed tensors, with the backend and arena that they share."""

    def __init__(self, state: Mapping[str, Tensor], backend: AnyBackend, arena: Arena) -> None:
        self.state, self.backend, self.arena = state, backend, arena

    def array(self, name: str) -> np.ndarray:
        """A packed tensor."""
        return self.state[name].numpy()

    def group_norm(self, name: str, module: Any) -> GroupNorm:
        """Parameters of the `nn.GroupNorm` of this name."""
        return GroupNorm(module.num_groups, module.eps, self.array(f"{name}.weight"), self.array(f"{name}.bias"))


def batch_norm_affine(builder: LayerBuilder, name: str, module: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """A BatchNorm with its running statistics as ``gain * x + bias``: float64 (C,) each.

    Raises:
        InputError: it has no running statistics.
    """
    if module.running_mean is None:
        raise InputError(f"expected running statistics in {name} to pack, got {module}; set track_running_stats")
    mean, var = (builder.array(f"{name}.{part}").astype(np.float64) for part in ("running_mean", "running_var"))
    gain, bias = 1 / np.sqrt(var + module.eps), np.zeros_like(mean)
    if module.affine:
        gain, bias = gain * builder.array(f"{name}.weight"), bias + builder.array(f"{name}.bias")
    return gain, bias - mean * gain


class BinaryConv:
    """A `BinaryConv2d`. Scale, BatchNorm and RPReLU are folded into one affine, a slope and a bias per channel and
    timestep group.

    Raises:
        InputError: a kernel size or a number of channels for which there are no kernels.
    """

    def __init__(self, builder: LayerBuilder, name: str, module: BinaryConv2d) -> None:
        self.backend, self.arena = builder.backend, builder.arena
        conv = module.binary_conv
        self.channels, self.filters, self.kernel_size = conv.in_channels, conv.out_channels, conv.kernel_size
        self.identity, self.spatial_scale = module.shortcut, module.method.spatial_scale
        if self.kernel_size not in KERNEL_SIZES:
            size = f"{self.kernel_size}x{self.kernel_size}"
            raise InputError(f"expected 1-bit convolutions of 1x1 or 3x3 to pack, got {size} at {name}")
        try:
            self.weight = self.backend.binary_weight(
                builder.array(f"{name}.binary_conv.bits"), self.channels, self.kernel_size
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        self.shifts = [pad_last(shift, -np.inf) for shift in self._shifts(builder, name, module)]
        self.parameters = [pad_last(parameters) for parameters in self._parameters(builder, name, module)]

    def _shifts(self, builder: LayerBuilder, name: str, module: BinaryConv2d) -> np.ndarray:
        """(K, C_in)."""
        return np.zeros((1, self.channels), np.float32) if module.TaR is None else builder.array(f"{name}.TaR.bias")

    def _parameters(self, builder: LayerBuilder, name: str, module: BinaryConv2d) -> np.ndarray:
        """(K, 4, C_out): scale, offset, slope and add of each group."""
        scale, offset = builder.array(f"{name}.binary_conv.scale").astype(np.float64), np.zeros(self.filters)
        if module.norm is not None:
            gain, offset = batch_norm_affine(builder, f"{name}.norm", module.norm)
            scale = scale * gain
        if module.TaA is None:
            before, slope, after = np.zeros((1, self.filters)), np.ones((1, self.filters)), np.zeros((1, self.filters))
        else:
            before, slope, after = (builder.array(f"{name}.TaA.{part}") for part in ("bias0", "slope", "bias1"))
        rows = [np.broadcast_to(scale, slope.shape), offset + before, slope, after]
        return np.stack(rows, 1).astype(np.float32)

    def __call__(
        self,
        x: Map,
        step: StepContext,
        out: Map,
        *,
        first: int = 0,
        norm: Affine | None = None,
        added: np.ndarray | None = None,
        residual: Map | None = None,
    ) -> np.ndarray:
        """Apply the layer to channels of x from `first` on (after GroupNorm and Swish if `norm` is given), and add
        `added` per channel and `residual`. Returns out's sums.
        """
        shift = self.shifts[min(step.group, len(self.shifts) - 1)]
        parameters = self.parameters[min(step.group, len(self.parameters) - 1)]
        if added is not None:
            parameters = parameters.copy()
            parameters[3, : self.filters] += added
        if self.spatial_scale:
            return self._with_spatial_scale(x, shift, parameters, out, first, norm, residual)
        return self.backend.binary_conv(
            x,
            self.weight,
            shift,
            parameters,
            out,
            first=first,
            norm=norm,
            keep=self.identity and norm is not None,
            shortcut=x if self.identity and norm is None else None,
            shortcut_first=first,
            residual=residual,
        )

    def _with_spatial_scale(
        self,
        x: Map,
        shift: np.ndarray,
        parameters: np.ndarray,
        out: Map,
        first: int,
        norm: Affine | None,
        residual: Map | None,
    ) -> np.ndarray:
        """Compute XNOR-Net's map K, then the convolution."""
        height, width, _ = x.shape
        with self.arena.maps((height, width, first + self.channels)) as (value,):
            if norm is None:
                value[...] = x[..., : value.shape[2]]
            else:
                self.backend.normalise(x, norm, value, swish=True)
            mean = torch.from_numpy(value[..., first : first + self.channels]).abs().mean(2)
            k = self.kernel_size
            gain = F.avg_pool2d(mean[None, None], k, stride=1, padding=k // 2)[0, 0].numpy()
            return self.backend.binary_conv(
                value,
                self.weight,
                shift,
                parameters,
                out,
                first=first,
                shortcut=value if self.identity else None,
                shortcut_first=first,
                residual=residual,
                gain=gain,
            )


class PlainConv3x3:
    """A full-precision 3x3 convolution."""

    def __init__(self, builder: LayerBuilder, name: str) -> None:
        weight = builder.array(f"{name}.weight")
        self.backend, self.filters = builder.backend, len(weight)
        self.weight = self.backend.conv3x3_weight(weight)
        self.bias = pad_last(bias_of(builder, name))

    def __call__(
        self,
        x: Map,
        step: StepContext,
        out: Map,
        *,
        norm: Affine | None = None,
        added: np.ndarray | None = None,
        residual: Map | None = None,
    ) -> np.ndarray:
        """Arguments and result as in `BinaryConv`."""
        bias = self.bias
        if added is not None:
            bias = bias.copy()
            bias[: self.filters] += added
        return self.backend.conv3x3(x, self.weight, bias, out, norm=norm, residual=residual)


class PlainConv1x1:
    """A full-precision 1x1 convolution."""

    def __init__(self, builder: LayerBuilder, name: str) -> None:
        weight = builder.array(f"{name}.weight")[:, :, 0, 0]
        self.backend, self.filters = builder.backend, len(weight)
        self.weight = self.backend.pointwise_weight(np.ascontiguousarray(weight))
        self.bias = pad_last(bias_of(builder, name))

    def __call__(self, x: Map, step: StepContext, out: Map) -> np.ndarray:
        """`out` may be x if both have the same width. Returns out's sums."""
        return self.backend.pointwise(x, self.weight, self.bias, out)


def binary_convs(builder: LayerBuilder, name: str, module: nn.Module) -> list[BinaryConv]:
    """All 1-bit convolutions in a module, in its order."""
    parts = [(part, layer) for part, layer in module.named_modules() if isinstance(layer, BinaryConv2d)]
    return [BinaryConv(builder, f"{name}.{part}", layer) for part, layer in parts]


def bias_of(builder: LayerBuilder, name: str) -> np.ndarray:
    """The bias of a convolution, zeros if it has none: float32 (C_out,)."""
    if f"{name}.bias" in builder.state:
        return builder.array(f"{name}.bias")
    return np.zeros(len(builder.state[f"{name}.weight"]), np.float32)

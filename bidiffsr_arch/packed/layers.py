"""The layers of a packed network, each built from its training module and the packed tensors, and run by a backend on
maps (H, W, padded C).

A layer that a GroupNorm may follow returns its map's sums beside it, so that no pass is needed to gather them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import ResBlockAttention, SelfAttention
from bidiffsr_arch.archs.rescale import CPDown, CPUp, PixelDown, PixelUp
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.packed.group_norm import GroupNorm
from bidiffsr_arch.packed.layout import pad_last, padded
from bidiffsr_arch.packed.workspace import Workspace


class Moment(NamedTuple):
    """A timestep as layers see it: what each ResBlock adds, by the name of the block, and the timestep group."""

    added: Mapping[str, np.ndarray]
    group: int


class Maker:
    """What layers are built from: the packed tensors by name, and the backend and workspace that all share."""

    def __init__(self, state: Mapping[str, Tensor], backend, workspace: Workspace) -> None:
        self.state, self.backend, self.workspace = state, backend, workspace

    def array(self, name: str) -> np.ndarray:
        return self.state[name].numpy()

    def group_norm(self, name: str, module: nn.GroupNorm) -> GroupNorm:
        return GroupNorm(module.num_groups, module.eps, self.array(f"{name}.weight"), self.array(f"{name}.bias"))


class BinaryConv:
    """A `BinaryConv2d`, its scale, BatchNorm and RPReLU folded into one affine, a slope and a bias a channel and
    timestep group.
    """

    def __init__(self, make: Maker, name: str, module: BinaryConv2d) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        conv = module.binary_conv
        self.channels, self.filters, self.kernel_size = conv.in_channels, conv.out_channels, conv.kernel_size
        self.identity, self.spatial_scale = module.shortcut, module.method.spatial_scale
        self.weight = self.backend.binary_weight(
            make.array(f"{name}.binary_conv.bits"), self.channels, self.kernel_size
        )
        self.shifts = [pad_last(shift, -np.inf) for shift in self._shifts(make, name, module)]
        self.parameters = [pad_last(parameters) for parameters in self._parameters(make, name, module)]

    def _shifts(self, make: Maker, name: str, module: BinaryConv2d) -> np.ndarray:
        """(K, C_in)."""
        return np.zeros((1, self.channels), np.float32) if module.TaR is None else make.array(f"{name}.TaR.bias")

    def _parameters(self, make: Maker, name: str, module: BinaryConv2d) -> np.ndarray:
        """(K, 4, C_out): scale, offset, slope and add of each group."""
        scale, offset = make.array(f"{name}.binary_conv.scale").astype(np.float64), np.zeros(self.filters)
        if module.norm is not None:
            weight, bias, mean, var = (
                make.array(f"{name}.norm.{part}") for part in ("weight", "bias", "running_mean", "running_var")
            )
            gain = weight / np.sqrt(var.astype(np.float64) + module.norm.eps)
            scale, offset = scale * gain, bias - mean * gain
        if module.TaA is None:
            before, slope, after = np.zeros((1, self.filters)), np.ones((1, self.filters)), np.zeros((1, self.filters))
        else:
            before, slope, after = (make.array(f"{name}.TaA.{part}") for part in ("bias0", "slope", "bias1"))
        rows = [np.broadcast_to(scale, slope.shape), offset + before, slope, after]
        return np.stack(rows, 1).astype(np.float32)

    def __call__(
        self,
        x: np.ndarray,
        moment: Moment,
        out: np.ndarray,
        *,
        first: int = 0,
        norm: tuple[np.ndarray, np.ndarray] | None = None,
        added: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        """The layer on channels of x from `first` on (through GroupNorm and Swish if `norm`), + added a channel +
        residual. Returns out's sums.
        """
        shift = self.shifts[min(moment.group, len(self.shifts) - 1)]
        parameters = self.parameters[min(moment.group, len(self.parameters) - 1)]
        if added is not None:
            parameters = parameters.copy()
            parameters[3, : self.filters] += added
        if self.spatial_scale:
            return self._with_spatial_scale(x, shift, parameters, out, first, norm, residual)
        keep = self.identity and norm is not None
        shortcut = x if self.identity and norm is None else None
        return self.backend.binary_conv(
            x,
            self.weight,
            shift,
            parameters,
            out,
            first=first,
            norm=norm,
            keep=keep,
            shortcut=shortcut,
            shortcut_first=first,
            residual=residual,
        )

    def _with_spatial_scale(self, x, shift, parameters, out, first, norm, residual) -> np.ndarray:
        """XNOR-Net: K needs the whole source before the first pixel can be finished."""
        with self.workspace.maps(x.shape) as (value,):
            if norm is None:
                value[...] = x
            else:
                self.backend.normalise(x, norm, value, swish=True)
            mean = torch.from_numpy(value[..., first : first + self.channels]).abs().mean(2)
            k = self.kernel_size
            gain = F.avg_pool2d(mean[None, None], k, stride=1, padding=k // 2)[0, 0].numpy()
            shortcut = value if self.identity else None
            return self.backend.binary_conv(
                value,
                self.weight,
                shift,
                parameters,
                out,
                first=first,
                shortcut=shortcut,
                shortcut_first=first,
                residual=residual,
                gain=gain,
            )


class PlainConv3x3:
    """A full-precision 3x3 convolution with bias."""

    def __init__(self, make: Maker, name: str) -> None:
        weight = make.array(f"{name}.weight")
        self.backend, self.filters = make.backend, len(weight)
        self.weight = self.backend.conv3x3_weight(weight)
        self.bias = pad_last(make.array(f"{name}.bias"))

    def __call__(
        self, x: np.ndarray, moment: Moment | None, out: np.ndarray, *, norm=None, added=None, residual=None
    ) -> np.ndarray:
        """As `BinaryConv`, whose arguments these are."""
        bias = self.bias
        if added is not None:
            bias = bias.copy()
            bias[: self.filters] += added
        return self.backend.conv3x3(x, self.weight, bias, out, norm=norm, residual=residual)


class ResBlock:
    """``x + conv2(conv1(x) + time)``, GroupNorm and Swish before each convolution; then self-attention where the level
    has it.
    """

    def __init__(self, make: Maker, name: str, module: ResBlockAttention) -> None:
        self.backend, self.workspace, self.name = make.backend, make.workspace, name
        self.norms, self.convs = [], []
        for part in ("block1", "block2"):
            inner = f"{name}.res_block.{part}"
            block = getattr(module.res_block, part)
            binary = isinstance(block.conv, BinaryConv2d)
            self.norms.append(make.group_norm(f"{inner}.block.0", block.block[0]))
            self.convs.append(
                BinaryConv(make, f"{inner}.conv", block.conv) if binary else PlainConv3x3(make, f"{inner}.conv")
            )
        attention = isinstance(module.attn, SelfAttention)
        self.attention = Attention(make, f"{name}.attn", module.attn) if attention else None

    def __call__(self, x: np.ndarray, sums: np.ndarray | None, moment: Moment, out: np.ndarray) -> np.ndarray:
        """`out` may be x. Returns out's sums."""
        pixels = x.shape[0] * x.shape[1]
        sums = self.backend.sums(x) if sums is None else sums
        norm = self.backend.group_norm
        with self.workspace.maps(x.shape) as (h,):
            sums = self.convs[0](x, moment, h, norm=norm(self.norms[0], sums, pixels), added=moment.added[self.name])
            sums = self.convs[1](h, moment, out, norm=norm(self.norms[1], sums, pixels), residual=x)
        return sums if self.attention is None else self.attention(out, sums)


class Attention:
    """``x + out(softmax(q k^T / sqrt(C)) v)`` over all positions, in place.

    With n the normalised map, q k^T = n (Wq^T Wk) n^T, so keys are n itself; and Wout goes into the values: (p v)
    Wout^T = p (n (Wout Wv)^T).
    """

    def __init__(self, make: Maker, name: str, module: SelfAttention) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        self.norm = make.group_norm(f"{name}.norm", module.norm)
        query, key, value = make.state[f"{name}.qkv.weight"][:, :, 0, 0].double().chunk(3)
        merged = torch.cat([query.T @ key, (make.state[f"{name}.out.weight"][:, :, 0, 0].double() @ value).T], 1)
        self.channels, self.weight = len(query), merged.float().contiguous()
        self.bias = make.state[f"{name}.out.bias"]

    def __call__(self, x: np.ndarray, sums: np.ndarray) -> None:
        height, width, channels = x.shape
        with self.workspace.maps(x.shape) as (n,):
            self.backend.normalise(x, self.backend.group_norm(self.norm, sums, height * width), n, swish=False)
            tokens = torch.from_numpy(n).view(-1, channels)[:, : self.channels]
            query, value = (tokens @ self.weight).split(self.channels, dim=1)
            mixed = F.scaled_dot_product_attention(query[None, None], tokens[None, None], value[None, None])[0, 0]
            torch.from_numpy(x).view(-1, channels)[:, : self.channels] += mixed + self.bias


class Down:
    """CP-Down or its baseline: one or two convolutions, the second on the other half of the channels and added, then
    PixelUnshuffle(2).
    """

    def __init__(self, make: Maker, name: str, module: CPDown | PixelDown) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        parts = ("biconv1", "biconv2") if isinstance(module, CPDown) else ("biconv",)
        self.convs = [BinaryConv(make, f"{name}.{part}", getattr(module, part)) for part in parts]
        self.halves = isinstance(module, CPDown)

    def __call__(self, x: np.ndarray, moment: Moment, out: np.ndarray) -> np.ndarray:
        """out: (H/2, W/2, padded 2C); returns its sums."""
        filters = self.convs[0].filters
        shape = (*x.shape[:2], padded(filters))
        with self.workspace.maps(shape) as (z,):
            if not self.halves:
                self.convs[0](x, moment, z)
            elif filters % 16 == 0:
                self.convs[0](x, moment, z)
                self.convs[1](x, moment, z, first=filters, residual=z)
            else:
                with self.workspace.maps(shape) as (half,):
                    half[..., :filters], half[..., filters:] = x[..., :filters], 0
                    self.convs[0](half, moment, z)
                    half[..., :filters] = x[..., filters : 2 * filters]
                    self.convs[1](half, moment, z, residual=z)
            return self.backend.space_to_depth(z, filters, out)


class Up:
    """CP-Up or its baseline: convolutions of the same input, side by side, then PixelShuffle(2)."""

    def __init__(self, make: Maker, name: str, module: CPUp | PixelUp) -> None:
        self.backend, self.workspace = make.backend, make.workspace
        parts = ("biconv1", "biconv2") if isinstance(module, CPUp) else ("biconv",)
        self.convs = [BinaryConv(make, f"{name}.{part}", getattr(module, part)) for part in parts]

    def __call__(self, x: np.ndarray, moment: Moment, out: np.ndarray) -> None:
        """out: (2H, 2W, padded C/2)."""
        for i, conv in enumerate(self.convs):
            with self.workspace.maps((*x.shape[:2], padded(conv.filters))) as (z,):
                conv(x, moment, z)
                self.backend.depth_to_space(z, conv.filters, out, i * conv.filters // 4)

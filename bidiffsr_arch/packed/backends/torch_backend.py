"""The backend in plain torch, for machines without Numba; each operation is written as its definition."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bidiffsr_arch.packed.backends.protocol import Affine, Backend, GroupNorm, Map
from bidiffsr_arch.packed.layout import pad_last, unpack_bits


def planes(x: Map, channels: int, first: int = 0) -> Tensor:
    """Channels of a map as (1, channels, H, W), a view."""
    return torch.from_numpy(x)[..., first : first + channels].permute(2, 0, 1)[None]


class BinaryWeight:
    """The stored bits and the shape of a weight."""

    def __init__(self, stored: np.ndarray, channels: int, kernel_size: int) -> None:
        self.stored, self.channels, self.kernel_size, self.filters = stored, channels, kernel_size, len(stored)

    def signs(self) -> Tensor:
        """±1, float32 (C_out, C_in, k, k); unpacked at each use to save memory."""
        positive = unpack_bits(self.stored, self.channels, self.kernel_size).transpose(0, 2, 1)
        return torch.from_numpy(
            np.where(positive, np.float32(1), np.float32(-1)).reshape(self.filters, self.channels, self.kernel_size, -1)
        )


class TorchBackend(Backend[BinaryWeight, Tensor, Tensor]):
    """Operations in plain torch, see `Backend`."""

    name = "torch"

    def begin(self) -> None:
        """Do nothing."""

    def binary_weight(self, stored: np.ndarray, channels: int, kernel_size: int) -> BinaryWeight:
        return BinaryWeight(stored, channels, kernel_size)

    def conv3x3_weight(self, weight: np.ndarray) -> Tensor:
        return torch.from_numpy(weight)

    def pointwise_weight(self, weight: np.ndarray) -> Tensor:
        return torch.from_numpy(weight)

    def binary_conv(
        self,
        x: Map,
        weight: BinaryWeight,
        shift: np.ndarray,
        parameters: np.ndarray,
        out: Map,
        *,
        first: int = 0,
        norm: Affine | None = None,
        keep: bool = False,
        shortcut: Map | None = None,
        shortcut_first: int = 0,
        residual: Map | None = None,
        gain: np.ndarray | None = None,
    ) -> np.ndarray:
        channels, filters = weight.channels, weight.filters
        source = planes(x, channels, first)
        if norm is not None:
            source = F.silu(source * _column(norm[0], channels) + _column(norm[1], channels))
        signs = torch.where(source + _column(shift, channels) >= 0, 1.0, -1.0)
        value = F.conv2d(signs, weight.signs(), padding=weight.kernel_size // 2)
        if gain is not None:
            value = value * torch.from_numpy(gain)
        scale, offset, slope, add = (_column(row, filters) for row in parameters)
        value = value * scale + offset
        value = torch.where(value > 0, value, slope * value) + add
        if keep:
            value = value + source
        if shortcut is not None:
            value = value + planes(shortcut, filters, shortcut_first)
        if residual is not None:
            value = value + planes(residual, filters)
        return self._put(value, out)

    def conv3x3(
        self,
        x: Map,
        weight: Tensor,
        add: np.ndarray,
        out: Map,
        *,
        norm: Affine | None = None,
        residual: Map | None = None,
    ) -> np.ndarray:
        filters, channels = weight.shape[:2]
        source = planes(x, channels)
        if norm is not None:
            source = F.silu(source * _column(norm[0], channels) + _column(norm[1], channels))
        value = F.conv2d(source, weight, torch.from_numpy(add[:filters]), padding=1)
        return self._put(value if residual is None else value + planes(residual, filters), out)

    def pointwise(
        self,
        x: Map,
        weight: Tensor,
        add: np.ndarray,
        out: Map,
        *,
        other: Map | None = None,
        other_weight: Tensor | None = None,
    ) -> np.ndarray:
        filters, channels = weight.shape
        value = F.conv2d(planes(x, channels), weight[:, :, None, None], torch.from_numpy(add[:filters]))
        if other is not None and other_weight is not None:
            value = value + F.conv2d(planes(other, other_weight.shape[1]), other_weight[:, :, None, None])
        return self._put(value, out)

    def normalise(self, x: Map, norm: Affine, out: Map, *, swish: bool) -> None:
        channels = x.shape[2]
        value = planes(x, channels) * _column(norm[0], channels) + _column(norm[1], channels)
        planes(out, channels).copy_(F.silu(value) if swish else value)

    def sums(self, x: Map) -> np.ndarray:
        rows = torch.from_numpy(x)
        return torch.stack([rows.sum(1), rows.square().sum(1)], 1).numpy()

    def space_to_depth(self, x: Map, channels: int, out: Map) -> np.ndarray:
        return self._put(F.pixel_unshuffle(planes(x, channels), 2), out)

    def depth_to_space(self, x: Map, channels: int, out: Map, first: int = 0) -> None:
        planes(out, channels // 4, first).copy_(F.pixel_shuffle(planes(x, channels), 2))

    def exchange(self, x1: Map, x2: Map, channels: int, s1: Map, s2: Map) -> None:
        half = channels // 2
        for out, odd in ((s1, 1), (s2, 0)):
            out[..., :half], out[..., half:channels] = x1[..., odd:channels:2], x2[..., 1 - odd : channels : 2]

    def group_norm(self, norm: GroupNorm, sums: np.ndarray, pixels: int) -> Affine:
        each = len(norm.weight) // norm.groups
        totals = sums.sum(0, dtype=np.float64)[:, : len(norm.weight)].reshape(2, norm.groups, each).sum(2)
        mean, square = totals / (pixels * each)
        deviation = np.sqrt(np.maximum(square - mean * mean, 0) + norm.eps)
        gain = norm.weight / np.repeat(deviation, each)
        bias = norm.bias - np.repeat(mean, each) * gain
        return Affine(pad_last(gain.astype(np.float32)), pad_last(bias.astype(np.float32)))

    def _put(self, value: Tensor, out: Map) -> np.ndarray:
        """Write (1, C, H, W) into a map; padding channels stay 0. Returns the map's sums."""
        planes(out, value.shape[1]).copy_(value)
        return self.sums(out)


def _column(vector: np.ndarray, channels: int) -> Tensor:
    """The first `channels` numbers as (channels, 1, 1)."""
    return torch.from_numpy(vector[:channels])[:, None, None]

"""Operations on maps by Numba kernels. A map is float32 (H, W, padded C), contiguous, a NumPy array."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np
import torch

from bidiffsr_arch.packed.kernels import pointwise, popcount, winograd
from bidiffsr_arch.packed.kernels.binary_conv import Shortcut, Source, Target, Weights, chunk_bytes
from bidiffsr_arch.packed.kernels.compile import announce_compilation
from bidiffsr_arch.packed.kernels.vector_ir import FEATURES, LANES
from bidiffsr_arch.packed.layout import (
    BLOCK,
    aligned,
    border_totals,
    pair_table,
    unpack_bits,
    weight_nibbles,
    weight_words,
)
from bidiffsr_arch.packed.torch_backend import TorchBackend

Norm = tuple[np.ndarray, np.ndarray]

ZEROS = aligned((1, 1, BLOCK))
NOTHING = Shortcut(ZEROS, 0, 0, 0, 0)
NO_NORM = ZEROS.reshape(-1)
ONE = np.ones(1, np.float32)


class Counting(NamedTuple):
    """A way to count bits: its convolution, its layout of weights, and how many blocks it counts at a time."""

    convolve: Callable
    lay_out: Callable[[np.ndarray], np.ndarray]
    table: np.ndarray
    in_words: bool
    group: int


class PlainWeight:
    """A full-precision 3x3 weight for Winograd's algorithm and for the definition.

    Winograd's rounding error is some times that of the definition; it is taken where it saves time.
    """

    def __init__(self, weight: np.ndarray) -> None:
        self.direct = torch.from_numpy(weight)

    def suits_winograd(self, pixels: int) -> bool:
        """Many input channels pay for the transforms, and many pixels for reading four times as many weights."""
        return self.direct.shape[1] >= 32 and pixels >= 8 * self.direct.shape[0]

    @cached_property
    def points(self) -> np.ndarray:
        return winograd.winograd_weights(self.direct.numpy())


class NumbaBackend:
    """Operations on maps.

    Those that make a map which a GroupNorm may follow return its sums: float32 (parts, 2, padded C), valid until the
    next operation.
    """

    def __init__(self, name: str, counting: Counting) -> None:
        self.name, self.counting = name, counting
        self._direct = TorchBackend()
        self._scratch = np.empty((1, 0), np.uint8)
        self._sums = np.empty(0, np.float32)
        self._targets: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def begin(self) -> None:
        """Before a step: as many threads as torch has, and a word where kernels have to be compiled first."""
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        announce_compilation()

    def binary_weight(self, stored: np.ndarray, channels: int, kernel_size: int) -> Weights:
        """Weights from their stored bits (`layout.pack_bits`)."""
        positive = unpack_bits(stored, channels, kernel_size)
        totals = border_totals(positive, self.counting.in_words)
        return Weights(kernel_size // 2, self.counting.table, self.counting.lay_out(positive), totals)

    def conv3x3_weight(self, weight: np.ndarray) -> "PlainWeight":
        """Weights from float32 (C_out, C_in, 3, 3)."""
        return PlainWeight(weight)

    def pointwise_weight(self, weight: np.ndarray) -> np.ndarray:
        """Weights from float32 (C_out, C_in)."""
        return pointwise.pointwise_weights(weight)

    def binary_conv(
        self,
        x: np.ndarray,
        weight: Weights,
        shift: np.ndarray,
        parameters: np.ndarray,
        out: np.ndarray,
        *,
        first: int = 0,
        norm: Norm | None = None,
        keep: bool = False,
        shortcut: np.ndarray | None = None,
        shortcut_first: int = 0,
        residual: np.ndarray | None = None,
        gain: np.ndarray | None = None,
    ) -> np.ndarray:
        """``out = PReLU(scale * gain * conv(sign(v + shift)) + offset) + add + shortcut + residual``, returns out's
        sums.

        Args:
            x: the source; v is its channels from `first` on, as many as `shift` has, or swish(gain * x + bias) of them
                where `norm` is given.
            shift: float32 (padded C_in,), -inf for padding channels.
            parameters: float32 (4, padded C_out): scale, offset, slope, add; 0 for padding channels.
            out: (H, W, padded C_out); may be `residual`.
            keep: the shortcut is v.
            shortcut, residual: maps to add, the first from channel `shortcut_first` on.
            gain: float32 (H, W), for xnor.
        """
        height, width = x.shape[:2]
        vectors = len(shift) // LANES
        source = Source(x, 4 * first, vectors, norm is not None, *(norm or (NO_NORM, NO_NORM)), shift)
        pixel_bytes = (len(shift) // 8 + 7) // 8 * 8
        needed = chunk_bytes(width, pixel_bytes, 4 * len(shift) if norm else 0, self.counting.group)[-1]
        self.counting.convolve(
            source,
            keep,
            weight,
            parameters,
            ONE if gain is None else gain,
            0 if gain is None else 4,
            NOTHING if shortcut is None else self._map(shortcut, shortcut_first),
            NOTHING if residual is None else self._map(residual),
            target := self._target(out, height),
            self._room(needed),
        )
        return target.sums

    def conv3x3(
        self,
        x: np.ndarray,
        weight: "PlainWeight",
        add: np.ndarray,
        out: np.ndarray,
        *,
        norm: Norm | None = None,
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        """Full-precision 3x3 convolution of x, or of swish(gain * x + bias) of it, + add + residual; returns out's
        sums.
        """
        height, width, channels = x.shape
        if not weight.suits_winograd(height * width):
            return self._direct.conv3x3(x, weight.direct, add, out, norm=norm, residual=residual)
        target = self._target(out, -(-height // 4))
        room = self._room(winograd.chunk_bytes(width, channels, out.shape[2])[-1])
        shortcut = NOTHING if residual is None else self._map(residual)
        winograd.winograd(
            x, norm is not None, *(norm or (NO_NORM, NO_NORM)), weight.points, add, shortcut, target, room
        )
        return target.sums

    def pointwise(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        add: np.ndarray,
        out: np.ndarray,
        *,
        other: np.ndarray | None = None,
        other_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Full-precision 1x1 convolution of x and, added, of another map; `out` may be x. Returns out's sums."""
        target = self._target(out, len(x))
        second = (np.empty((0, 0, BLOCK), np.float32), weight[:0]) if other is None else (other, other_weight)
        pointwise.pointwise(x, weight, *second, add, NOTHING, target, self._room(pointwise.chunk_bytes(out.shape[2])))
        return target.sums

    def normalise(self, x: np.ndarray, norm: Norm, out: np.ndarray, *, swish: bool) -> None:
        """``out = gain * x + bias``, through Swish if asked; `out` may be x."""
        pointwise.normalise(x, *norm, swish, out)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Sums of a map that no operation has gathered."""
        sums = self._sums_of(len(x), x.shape[2])
        pointwise.channel_sums(x, sums)
        return sums

    def space_to_depth(self, x: np.ndarray, channels: int, out: np.ndarray) -> np.ndarray:
        """PixelUnshuffle(2) of the first `channels` channels; returns out's sums."""
        sums = self._sums_of(len(out), out.shape[2])
        pointwise.space_to_depth(x, channels, out, sums)
        return sums

    def depth_to_space(self, x: np.ndarray, channels: int, out: np.ndarray, first: int = 0) -> None:
        """PixelShuffle(2) of the first `channels` channels, to out's channels from `first` on."""
        pointwise.depth_to_space(x, channels, out, first)

    def alternate(self, x1: np.ndarray, odd1: int, x2: np.ndarray, odd2: int, channels: int, out: np.ndarray) -> None:
        """``out = [x1 every second channel from odd1 | x2 every second from odd2]`` of `channels` channels each."""
        pointwise.alternate(x1, odd1, x2, odd2, channels, out)

    def _map(self, x: np.ndarray, first: int = 0) -> Shortcut:
        _, width, channels = x.shape
        return Shortcut(x, 4 * first, 4 * width * channels, 4 * channels, 4 * BLOCK)

    def _target(self, out: np.ndarray, parts: int) -> Target:
        _, width, channels = out.shape
        if channels not in self._targets:
            starts = np.arange(0, channels, BLOCK)
            self._targets[channels] = 4 * starts, starts
        return Target(out, 4 * width * channels, 4 * channels, *self._targets[channels], self._sums_of(parts, channels))

    def _sums_of(self, parts: int, channels: int) -> np.ndarray:
        size = parts * 2 * channels
        if self._sums.size < size:
            self._sums = aligned((size,))
        return self._sums[:size].reshape(parts, 2, channels)

    def _room(self, size: int) -> np.ndarray:
        """Scratch of each thread, at least `size` bytes."""
        threads = numba.get_num_threads()
        if self._scratch.shape[0] != threads or self._scratch.shape[1] < size:
            self._scratch = aligned((threads, -(-size // 64) * 64), np.uint8, None)
        return self._scratch


POPCOUNT = Counting(popcount.binary_conv, weight_words, np.zeros(1, np.uint8), in_words=True, group=1)


def portable() -> NumbaBackend:
    """Popcount of words: any CPU, and the fastest on those that count the bits of whole vectors (AVX-512 VPOPCNTDQ)."""
    return NumbaBackend("numba-portable", POPCOUNT)


def avx2() -> NumbaBackend:
    """Table look-ups by byte shuffle: CPUs with AVX2."""
    from bidiffsr_arch.packed.kernels import lookup

    return NumbaBackend(
        "numba-avx2", Counting(lookup.binary_conv, weight_nibbles, pair_table(), in_words=False, group=lookup.GROUP)
    )


def fastest() -> str:
    """Name of the backend that suits this CPU best."""
    return "numba-avx2" if "avx2" in FEATURES and not popcount.FAST else "numba-portable"

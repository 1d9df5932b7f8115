"""The backend whose operations are Numba kernels."""

import numpy as np

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.backends.protocol import Affine, Backend, GroupNorm, Map
from bidiffsr_arch.packed.kernels import norm as norms
from bidiffsr_arch.packed.kernels import pointwise, popcount, rearrange, winograd
from bidiffsr_arch.packed.kernels.binary_conv import (
    PackedWeight,
    Scale,
    Shortcut,
    Source,
    Target,
    lookup_conv,
    popcount_conv,
    scratch_from,
)
from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch, threads_of_kernels
from bidiffsr_arch.packed.kernels.vector_ir import FEATURES, LANES
from bidiffsr_arch.packed.kernels.winograd_transforms import winograd_weights
from bidiffsr_arch.packed.layout import (
    BLOCK,
    COUNT_BYTES,
    TABLE_FILTERS,
    aligned,
    border_totals,
    pair_table,
    unpack_bits,
    weight_nibbles,
    weight_words,
)

ZEROS = aligned((1, 1, BLOCK))
NOTHING = Shortcut(ZEROS, 0, 0, 0, 0)
NO_NORM = Affine(ZEROS.reshape(-1), ZEROS.reshape(-1))
ONE = np.ones(1, np.float32)


class NumbaBackend(Backend[PackedWeight, np.ndarray, np.ndarray]):
    """Operations by Numba kernels, compiled at their first call and cached on disk.

    Args:
        name: ``numba-avx2`` counts bits by table look-up, ``numba-portable`` by XOR and popcount of words.
    """

    def __init__(self, name: str) -> None:
        self.name, self.in_words = name, name == "numba-portable"
        self._binary_conv = popcount_conv if self.in_words else lookup_conv
        self._table = np.zeros(0, np.uint8) if self.in_words else pair_table().reshape(-1)
        self._scratch = np.empty((1, 0), np.uint8)
        self._sums = np.empty(0, np.float32)
        self._targets: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def begin(self) -> None:
        as_many_threads_as_torch()

    def binary_weight(self, stored: np.ndarray, channels: int, kernel_size: int) -> PackedWeight:
        if channels * kernel_size**2 >= 2 ** (8 * COUNT_BYTES):
            raise InputError(
                f"expected 1-bit convolutions of fewer than 2^16 inputs, got {channels * kernel_size**2}; use torch"
            )
        positive = unpack_bits(stored, channels, kernel_size)
        lay_out = weight_words if self.in_words else weight_nibbles
        bits = (
            lay_out(positive).view(np.uint8).reshape(-(-len(stored) // (BLOCK if self.in_words else TABLE_FILTERS)), -1)
        )
        return PackedWeight(kernel_size // 2, self._table, bits, border_totals(positive, self.in_words))

    def conv3x3_weight(self, weight: np.ndarray) -> np.ndarray:
        return winograd_weights(weight)

    def pointwise_weight(self, weight: np.ndarray) -> np.ndarray:
        return pointwise.pointwise_weights(weight)

    def binary_conv(
        self,
        x: Map,
        weight: PackedWeight,
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
        height, width = x.shape[:2]
        vectors = len(shift) // LANES
        source = Source(x, 4 * first, vectors, norm is not None, *(norm or NO_NORM), shift)
        end = scratch_from(0, width, len(shift), norm is not None).end
        self._binary_conv(
            source,
            keep,
            weight,
            Scale(parameters, ONE, 0) if gain is None else Scale(parameters, np.ascontiguousarray(gain).reshape(-1), 4),
            NOTHING if shortcut is None else self._map(shortcut, shortcut_first),
            NOTHING if residual is None else self._map(residual),
            target := self._target(out, height),
            self._scratch_of(end),
        )
        return target.sums

    def conv3x3(
        self,
        x: Map,
        weight: np.ndarray,
        add: np.ndarray,
        out: Map,
        *,
        norm: Affine | None = None,
        residual: Map | None = None,
    ) -> np.ndarray:
        height, width, channels = x.shape
        target = self._target(out, -(-height // 4))
        scratch = self._scratch_of(winograd.scratch_from(0, width, channels, out.shape[2]).end)
        shortcut = NOTHING if residual is None else self._map(residual)
        winograd.winograd(x, norm is not None, *(norm or NO_NORM), weight, add, shortcut, target, scratch)
        return target.sums

    def pointwise(
        self,
        x: Map,
        weight: np.ndarray,
        add: np.ndarray,
        out: Map,
        *,
        other: Map | None = None,
        other_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        target = self._target(out, len(x))
        second = (np.empty((0, 0, BLOCK), np.float32), weight[:0]) if other is None else (other, other_weight)
        scratch = self._scratch_of(pointwise.chunk_bytes(out.shape[2]))
        pointwise.pointwise(x, weight, *second, add, NOTHING, target, scratch)
        return target.sums

    def normalise(self, x: Map, norm: Affine, out: Map, *, swish: bool) -> None:
        norms.normalise(x, *norm, swish, out)

    def sums(self, x: Map) -> np.ndarray:
        sums = self._sums_of(len(x), x.shape[2])
        norms.channel_sums(x, sums)
        return sums

    def space_to_depth(self, x: Map, channels: int, out: Map) -> np.ndarray:
        sums = self._sums_of(len(out), out.shape[2])
        rearrange.space_to_depth(x, channels, out, sums)
        return sums

    def depth_to_space(self, x: Map, channels: int, out: Map, first: int = 0) -> None:
        rearrange.depth_to_space(x, channels, out, first)

    def exchange(self, x1: Map, x2: Map, channels: int, s1: Map, s2: Map) -> None:
        rearrange.exchange(x1, x2, channels, s1, s2)

    def group_norm(self, norm: GroupNorm, sums: np.ndarray, pixels: int) -> Affine:
        gain, bias = aligned((2, sums.shape[2]))
        totals = np.zeros(sums.shape[1:])
        norms.group_norm(sums, totals, pixels, norm.groups, norm.eps, norm.weight, norm.bias, gain, bias)
        return Affine(gain, bias)

    def _map(self, x: Map, first: int = 0) -> Shortcut:
        _, width, channels = x.shape
        return Shortcut(x, 4 * first, 4 * width * channels, 4 * channels, 4 * BLOCK)

    def _target(self, out: Map, parts: int) -> Target:
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

    def _scratch_of(self, size: int) -> np.ndarray:
        """Scratch buffers of the threads, of at least `size` bytes each."""
        threads = threads_of_kernels()
        if self._scratch.shape[0] != threads or self._scratch.shape[1] < size:
            self._scratch = aligned((threads, -(-size // 64) * 64), np.uint8, None)
        return self._scratch


def fastest() -> str:
    """Name of the fastest backend for this CPU.

    ``numba-portable`` runs on any CPU and is fastest if there is a popcount instruction for vectors (AVX-512
    VPOPCNTDQ). ``numba-avx2`` looks up counts by byte shuffles.
    """
    return "numba-avx2" if "avx2" in FEATURES and not popcount.FAST else "numba-portable"

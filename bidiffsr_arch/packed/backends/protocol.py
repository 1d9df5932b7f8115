"""The operations of a backend of packed inference on feature maps.

A map is a contiguous NumPy array, float32 (H, W, padded C), channels innermost; C is padded by `layout.padded`. The
padding channels contain finite numbers, which do not affect results.
"""

from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

Map: TypeAlias = np.ndarray

BinaryWeight = TypeVar("BinaryWeight")
ConvWeight = TypeVar("ConvWeight")
PointwiseWeight = TypeVar("PointwiseWeight")


class GroupNorm(NamedTuple):
    """A GroupNorm's parameters: `groups` of neighbouring channels; weight, bias: float32 (C,)."""

    groups: int
    eps: float
    weight: np.ndarray
    bias: np.ndarray


class Affine(NamedTuple):
    """``gain * x + bias`` per channel: float32 (padded C,) each, 0 for padding channels."""

    gain: np.ndarray
    bias: np.ndarray


class Backend(Protocol[BinaryWeight, ConvWeight, PointwiseWeight]):
    """Operations on maps. The three type parameters are the types of a backend's prepared weights.

    An operation whose result a GroupNorm may follow returns the result's sums: float32 (parts, 2, padded C), the sums
    of values and of squares over parts of the map, valid until the next operation.
    """

    name: str

    def begin(self) -> None:
        """Prepare for a step: set the number of threads to that of torch.

        Raises:
            InputError: this process was forked from one that has run kernels.
        """

    def binary_weight(self, stored: np.ndarray, channels: int, kernel_size: int) -> BinaryWeight:
        """1-bit weights (C_out, channels, kernel_size, kernel_size) from their stored bits (`layout.pack_bits`).

        Raises:
            InputError: counts do not fit into 16 bits, because there are too many channels.
        """

    def conv3x3_weight(self, weight: np.ndarray) -> ConvWeight:
        """Full-precision weights from float32 (C_out, C_in, 3, 3)."""

    def pointwise_weight(self, weight: np.ndarray) -> PointwiseWeight:
        """Full-precision weights from float32 (C_out, C_in)."""

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
        """``out = PReLU(scale * gain * conv(sign(v + shift)) + offset) + add + shortcut + residual``; returns its sums.

        Args:
            x: the source; v is its channels from `first` on, as many as `shift` has, or swish(norm(x)) of them where
                `norm` is given.
            shift: float32 (padded C_in,), -inf for padding channels.
            parameters: float32 (4, padded C_out): scale, offset, slope, add; 0 for padding channels.
            out: (H, W, padded C_out); may be `residual`.
            keep: add v as the shortcut.
            shortcut, residual: maps to add, the first from channel `shortcut_first` on.
            gain: float32 (H, W), for XNOR-Net.
        """

    def conv3x3(
        self,
        x: Map,
        weight: ConvWeight,
        add: np.ndarray,
        out: Map,
        *,
        norm: Affine | None = None,
        residual: Map | None = None,
    ) -> np.ndarray:
        """Full-precision 3x3 convolution of x or of swish(norm(x)), zero padding, + add + residual; returns the sums.

        add: float32 (padded C_out,).
        """

    def pointwise(
        self,
        x: Map,
        weight: PointwiseWeight,
        add: np.ndarray,
        out: Map,
        *,
        other: Map | None = None,
        other_weight: PointwiseWeight | None = None,
    ) -> np.ndarray:
        """Full-precision 1x1 convolution of x, plus that of another map; `out` may be x. Returns the sums."""

    def normalise(self, x: Map, norm: Affine, out: Map, *, swish: bool) -> None:
        """``out = gain * x + bias``, then Swish if `swish`; `out` may be x."""

    def sums(self, x: Map) -> np.ndarray:
        """The sums of a map, if no operation has returned them."""

    def space_to_depth(self, x: Map, channels: int, out: Map) -> np.ndarray:
        """PixelUnshuffle(2) of the first `channels` channels; returns the sums."""

    def depth_to_space(self, x: Map, channels: int, out: Map, first: int = 0) -> None:
        """PixelShuffle(2) of the first `channels` channels, to out's channels from `first` on."""

    def exchange(self, x1: Map, x2: Map, channels: int, s1: Map, s2: Map) -> None:
        """``s1 = [x1 odd channels | x2 even ones]``, ``s2 = [x1 even ones | x2 odd ones]``, of `channels` each."""

    def group_norm(self, norm: GroupNorm, sums: np.ndarray, pixels: int) -> Affine:
        """A GroupNorm as an affine per channel, for an input with these sums over `pixels` pixels."""

"""XNOR-popcount in training: the forward pass of 1-bit convolutions by XOR and popcount, on a CPU.

A convolution of ±1 gives integers, so the result is that of conv2d, in less time. The backward pass convolves real
gradients and is unchanged. Packing and counting are operators of `torch.library`, because `torch.compile` cannot trace
Numba's kernels.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import PlainConv2d
from bidiffsr_arch.binary.conv import BinaryWeightConv2d, SignConv2d
from bidiffsr_arch.binary.convolve import BinaryConvBackend
from bidiffsr_arch.packed.layout import PLANE_FILTERS, PLANE_SLACK, WORD, padded
from bidiffsr_arch.packed.training_winograd import WINOGRAD


@torch.library.custom_op(
    "bidiffsr_arch::pack_signs",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? shift, Tensor v) -> Tensor",
)
def _pack_signs(x: Tensor, shift: Tensor | None, v: Tensor) -> Tensor:
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch
    from bidiffsr_arch.packed.kernels.planes import pack_planes

    batch, channels = x.shape[:2]
    if not x.numel() or v.shape[1] != channels or v.shape[2] != v.shape[3]:
        raise ValueError(f"expected maps for {tuple(v.shape)} weights, got {tuple(x.shape)}")
    if shift is not None and shift.shape not in ((1, channels, 1, 1), (batch, channels, 1, 1)):
        raise ValueError(f"expected a shift for maps of {tuple(x.shape)}, got {tuple(shift.shape)}")
    shifts = x.new_zeros(1, channels) if shift is None else shift.flatten(1)
    bits = _new_bits(x, v)
    as_many_threads_as_torch()
    pack_planes(_array(x.float()), _array(shifts.float()), v.shape[-1] // 2, bits.view(torch.uint64).numpy())
    return bits


@_pack_signs.register_fake
def _(x: Tensor, shift: Tensor | None, v: Tensor) -> Tensor:
    return _new_bits(x, v)


@torch.library.custom_op(
    "bidiffsr_arch::pack_weight",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor v) -> (Tensor, Tensor)",
)
def _pack_weight(v: Tensor) -> tuple[Tensor, Tensor]:
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch
    from bidiffsr_arch.packed.kernels.planes import pack_filters

    words, sums = _new_weight(v)
    as_many_threads_as_torch()
    pack_filters(_array(v.flatten(2)), words.view(torch.uint64).numpy(), sums.numpy())
    return words, sums


@_pack_weight.register_fake
def _(v: Tensor) -> tuple[Tensor, Tensor]:
    return _new_weight(v)


@torch.library.custom_op(
    "bidiffsr_arch::count_signs",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor packed, Tensor words, Tensor sums) -> Tensor",
)
def _count_signs(packed: Tensor, words: Tensor, sums: Tensor) -> Tensor:
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch
    from bidiffsr_arch.packed.kernels.planes import count_planes

    threads = as_many_threads_as_torch()
    n = _new_result(packed, words, sums)
    differing = np.empty((threads, PLANE_FILTERS, n.shape[3] + PLANE_SLACK), np.uint16)
    bits, weights = (tensor.view(torch.uint64).numpy() for tensor in (packed, words))
    count_planes(bits, weights, sums.numpy(), differing, n.numpy())
    return n


@_count_signs.register_fake
def _(packed: Tensor, words: Tensor, sums: Tensor) -> Tensor:
    return _new_result(packed, words, sums)


def pack_signs(x: Tensor, shift: Tensor | None, v: Tensor) -> Tensor:
    """The signs of ``x + shift`` as bits.

    Args:
        x: (B, C_in, H, W), float32 or shorter floats.
        shift: (B, C_in, 1, 1) or (1, C_in, 1, 1), or None.
        v: the weight (C_out, C_in, k, k), k odd, of the convolution; only its shape is used.
    Returns:
        int64, `layout`'s planes.
    Raises:
        ValueError: the shapes do not match, or x is empty.
    """
    return torch.ops.bidiffsr_arch.pack_signs(x, shift, v)


def pack_weight(v: Tensor) -> tuple[Tensor, Tensor]:
    """The signs of a weight as bits.

    Args:
        v: float32 (C_out, C_in, k, k), +1 where not negative.
    Returns:
        int64 words and int32 sums, as in `planes.pack_filters`.
    """
    return torch.ops.bidiffsr_arch.pack_weight(v)


def count_signs(packed: Tensor, words: Tensor, sums: Tensor) -> Tensor:
    """``conv(sign(x + shift), sign(v))``, zero padding (a padded tap adds 0), stride 1.

    Args:
        packed: what `pack_signs` returned for x, shift and v.
        words, sums: what `pack_weight` returned for v; at most 32767 taps per filter.
    Returns:
        int16 (B, C_out, H, W).
    """
    return torch.ops.bidiffsr_arch.count_signs(packed, words, sums)


# Smaller layers gain little and pay for one more synchronisation of threads. With the short spin of
# `bidiffsr_arch.threads`, two threads beside 15 other processes on two cores (2026-11-26, Xeon at 2.8 GHz) took 2.0 ms
# in place of conv2d's 3.8 for 2^25 multiply-accumulates, 6.7 in place of 7.6 for 2^22, 14 in place of 13 for 2^21.
MIN_MACS = 2**25
POPCOUNT = BinaryConvBackend(pack_signs, pack_weight, count_signs, MIN_MACS)


def use_training_kernels(network: nn.Module) -> None:
    """Let the convolutions of a network use the package's kernels in training on a CPU, if Numba can be imported:
    XNOR-popcount for 1-bit convolutions, Winograd's for gradients and for convolutions in full precision."""
    try:
        import bidiffsr_arch.packed.kernels.planes  # noqa: F401
    except ImportError:
        return
    for module in network.modules():
        if isinstance(module, BinaryWeightConv2d):
            module.backend = POPCOUNT
        if isinstance(module, (SignConv2d, PlainConv2d)):
            module.conv_backend = WINOGRAD


def _new_bits(x: Tensor, v: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    border = v.shape[-1] - 1
    shape = (batch, padded(channels, WORD) // WORD, height + border, width + border + PLANE_SLACK)
    return x.new_empty(shape, dtype=torch.int64)


def _new_weight(v: Tensor) -> tuple[Tensor, Tensor]:
    filters, channels, taps = v.flatten(2).shape
    words = (padded(filters, PLANE_FILTERS) // PLANE_FILTERS, padded(channels, WORD) // WORD, taps, PLANE_FILTERS)
    return v.new_empty(words, dtype=torch.int64), v.new_empty((filters, taps + 1), dtype=torch.int32)


def _new_result(packed: Tensor, words: Tensor, sums: Tensor) -> Tensor:
    batch, _, rows, columns = packed.shape
    border = math.isqrt(words.shape[2]) - 1
    shape = (batch, len(sums), rows - border, columns - border - PLANE_SLACK)
    return packed.new_empty(shape, dtype=torch.int16)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()

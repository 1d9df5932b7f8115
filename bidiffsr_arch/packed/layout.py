"""Layouts of bits in memory.

A bit is 1 for +1 and 0 for -1. With a and w in bits over n positions, the product of the ±1 vectors is

    sum a_i w_i = n - 2 popcount(a XOR w)

Positions run over ``(tap, channel)``: taps row by row, channels innermost. Four layouts hold the same bits:

- *stored* (files, `pack_bits`): uint8 (C_out, ceil(taps * C_in / 8)), position p of a filter in byte p // 8, bit p % 8.
  Only the last byte of a filter is padded.
- *words* (popcount kernel, `weight_words`): channels of each tap padded to whole 64-bit words, and `BLOCK` filters side
  by side, so that one vector holds the same word of 8 filters: uint64 (C_out / BLOCK, taps, words, BLOCK).
- *nibbles* (table kernel, `weight_nibbles`): 4 channels of a tap as one byte, 64 filters side by side.
- *planes* (training, `kernels.planes`): words of neighbouring pixels side by side along a row of the image, with a
  border of zeros and `PLANE_SLACK`: uint64 (B, ceil(C_in / 64), H + k - 1, W + k - 1 + PLANE_SLACK), and words of
  `PLANE_FILTERS` filters side by side.

Feature maps are float32 (H, W, `padded`(C)), channels innermost. Padding channels contain finite numbers that do not
affect results: their activation bits (shift -inf), weight bits, real weights and gains are 0.
"""

import numpy as np
from numpy.typing import DTypeLike

BLOCK = 16
"""Channels that kernels handle together: maps are padded to a multiple of it."""

KERNEL_SIZES = (1, 3)
"""Supported kernel sizes of 1-bit convolutions."""

WORD = 64
"""Channels in one word of activation bits."""

ROWS = 4
"""Rows of bits that a thread stores: two output rows need one more above and below."""

SEGMENT = 64
"""Pixels of a row that are counted before their epilogue runs, so that the counters stay in the L1 cache."""

PLANE_SLACK = 7
"""Words that a vector of 8 may read beyond the end of a row of planes."""

PLANE_FILTERS = 4
"""Filters that share a load of planes."""

COUNT_BYTES = 2
"""Bytes of a count of differing bits; 9 * C of them must stay below 2^16."""

NOTHING = np.uint8(0x80)
"""A weight nibble for which the table look-up returns 0; it pads runs of nibbles."""


def padded(channels: int, block: int = BLOCK) -> int:
    """`channels` rounded up to a multiple of `block`."""
    return -(-channels // block) * block


def aligned(shape: tuple[int, ...], dtype: DTypeLike = np.float32, fill: float | None = 0) -> np.ndarray:
    """A new array aligned to 64 bytes; uninitialised if `fill` is None."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array: np.ndarray = raw[start : start + size].view(dtype).reshape(shape)
    if fill is not None:
        array.fill(fill)
    return array


def aligned_copy(values: np.ndarray) -> np.ndarray:
    """`values` in a new contiguous array aligned to 64 bytes."""
    array = aligned(values.shape, values.dtype, None)
    array[...] = values
    return array


def pad_last(values: np.ndarray, fill: float = 0, block: int = BLOCK) -> np.ndarray:
    """`values` (..., C) with `fill` after its last channel, (..., padded(C)), aligned."""
    array = aligned((*values.shape[:-1], padded(values.shape[-1], block)), values.dtype, fill)
    array[..., : values.shape[-1]] = values
    return array


def pack_bits(positive: np.ndarray) -> np.ndarray:
    """Stored layout of a weight.

    Args:
        positive: bool (C_out, C_in, k, k), True for +1.
    Returns:
        uint8 (C_out, ceil(k * k * C_in / 8)).
    """
    filters = np.moveaxis(positive, 1, -1).reshape(len(positive), -1)
    return np.packbits(filters, axis=1, bitorder="little")


def unpack_bits(stored: np.ndarray, channels: int, kernel_size: int) -> np.ndarray:
    """Inverse of `pack_bits`: bool (C_out, k * k, C_in), taps before channels."""
    positions = kernel_size * kernel_size * channels
    bits = np.unpackbits(stored, axis=1, count=positions, bitorder="little")
    return bits.reshape(len(stored), -1, channels).astype(bool)


def weight_words(positive: np.ndarray) -> np.ndarray:
    """Words layout: bool (C_out, taps, C_in) -> uint64 (padded(C_out) / BLOCK, taps, ceil(C_in / 64), BLOCK)."""
    filters, taps, channels = positive.shape
    bits = np.zeros((padded(filters), taps, padded(channels, WORD)), bool)
    bits[:filters, :, :channels] = positive
    words = np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)
    return aligned_copy(words.reshape(-1, BLOCK, taps, words.shape[-1]).transpose(0, 2, 3, 1))


def border_totals(positive: np.ndarray, in_words: bool) -> np.ndarray:
    """The total from which twice the count of differing bits is subtracted, for each of the 16 positions of a pixel
    relative to the image's border:

        accumulator = total - 2 * count
        total       = C * (taps inside) + 2 * (count of the taps outside)

    A tap outside of the image must add 0 to the accumulator, but kernels count it like the others. The popcount kernel
    reads activation bits 0 there and counts popcount(w); the table kernel counts 2 for every group of 4 channels.

    Args:
        positive: bool (C_out, taps, C_in), taps 1 or 9.
    Returns:
        int32 (16, padded(C_out)); bit 0 of the row: no row above, bit 1: no row below, bit 2: no column on the left,
        bit 3: none on the right.
    """
    filters, taps, channels = positive.shape
    totals = np.zeros((16, padded(filters)), np.int32)
    totals[:, :filters] = taps * channels
    if taps == 1:
        return totals
    counted = (
        positive.sum(-1, dtype=np.int32) if in_words else np.full((filters, taps), 2 * -(-channels // 4), np.int32)
    )
    change = (2 * counted - channels).reshape(filters, 3, 3)
    for place in range(16):
        outside = np.zeros((3, 3), bool)
        outside[0] |= bool(place & 1)
        outside[2] |= bool(place & 2)
        outside[:, 0] |= bool(place & 4)
        outside[:, 2] |= bool(place & 8)
        totals[place, :filters] += (change * outside).sum((1, 2))
    return totals


# The table kernel processes 64 filters and groups of 4 channels. Widening its byte counters to 16 bits permutes the
# filters; they are stored in the order that this permutation sorts.
TABLE_FILTERS = 64
TABLE_ORDER = np.r_[0:8, 16:24, 8:16, 24:32]
TABLE_STEP = 3
OUTSIDE = 16
"""Value of an activation nibble outside of the image."""


def nibble_groups(channels: int) -> int:
    """Number of groups of 4 channels in a map of `channels`."""
    return padded(channels) // 4


def weight_nibbles(positive: np.ndarray) -> np.ndarray:
    """Nibbles layout: bool (C_out, taps, C_in) -> uint8 (ceil(C_out / 64), k, run, 64).

    `run` is the k * groups nibbles of one row of taps, padded with `NOTHING` to a multiple of `TABLE_STEP`. A nibble
    without any channel is `NOTHING`, too.
    """
    filters, taps, channels = positive.shape
    rows = round(taps**0.5)
    groups = nibble_groups(channels)
    bits = np.zeros((padded(filters, TABLE_FILTERS), taps, groups * 4), np.uint8)
    bits[:filters, :, :channels] = positive
    nibbles = (bits.reshape(len(bits), taps, groups, 4) * np.array([1, 2, 4, 8], np.uint8)).sum(-1, dtype=np.uint8)
    nibbles[:, :, -(-channels // 4) :] = NOTHING
    nibbles = nibbles.reshape(len(bits), rows, rows * groups)
    short = -nibbles.shape[2] % TABLE_STEP
    nibbles = np.pad(nibbles, ((0, 0), (0, 0), (0, short)), constant_values=NOTHING)
    halves = nibbles.reshape(-1, 2, 32, rows, nibbles.shape[2])[:, :, TABLE_ORDER]
    return aligned_copy(halves.transpose(0, 3, 4, 1, 2).reshape(len(halves), rows, -1, TABLE_FILTERS))


def pair_table() -> np.ndarray:
    """``table[a + 17 b][w] = popcount(a ^ w) + 16 popcount(b ^ w)``: one look-up for the nibbles a, b of two pixels.

    a or b = `OUTSIDE` counts 2 of 4 bits for every weight, so that ``4 - 2 * 2 = 0`` is added. uint8 (289, 32): 16
    entries, twice, because a 256-bit shuffle looks up within each half.
    """
    nibble = np.arange(16)
    count = np.array([[bin(a ^ w).count("1") for w in nibble] for a in nibble] + [[2] * 16], np.uint8)
    count = np.tile(count, (1, 2))
    return aligned_copy((count[None] + 16 * count[:, None]).reshape(-1, 32))

"""The bit layouts: one worked example each, round trips, and the totals at the border."""

from pathlib import Path

import numpy as np
import pytest
from definitions import binary_accumulators
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.packed import layout


def test_stored_bits_by_hand():
    # One filter, 2 channels, 3x3. Position p = 2 * tap + channel; its bit is p % 8 of byte p // 8.
    positive = np.zeros((1, 2, 3, 3), bool)
    positive[0, 0, 0, 0] = True  # tap 0, channel 0: p = 0, byte 0, value 1
    positive[0, 1, 0, 2] = True  # tap 2, channel 1: p = 5, byte 0, value 32
    positive[0, 0, 1, 1] = True  # tap 4, channel 0: p = 8, byte 1, value 1
    positive[0, 1, 2, 2] = True  # tap 8, channel 1: p = 17, byte 2, value 2
    np.testing.assert_array_equal(layout.pack_bits(positive), [[33, 1, 2]])


def test_words_by_hand():
    # 3 filters, 66 channels, 1x1: two words, the second of which holds channels 64 and 65.
    positive = np.zeros((3, 1, 66), bool)
    positive[0, 0, [0, 63]] = True
    positive[1, 0, 64] = True
    positive[2, 0, [1, 65]] = True
    words = layout.weight_words(positive)
    assert words.shape == (1, 1, 2, 16) and words.ctypes.data % 64 == 0
    np.testing.assert_array_equal(words[0, 0, 0, :3], [2**63 + 1, 0, 2])
    np.testing.assert_array_equal(words[0, 0, 1, :3], [0, 1, 2])
    assert not words[..., 3:].any()


def test_nibbles_by_hand():
    # 9 filters, 6 channels, 1x1: nibble 0 holds channels 0-3, nibble 1 channels 4 and 5, the other 2 of 16
    # channels nothing.
    positive = np.zeros((9, 1, 6), bool)
    positive[8, 0, [0, 3]] = True  # 1 + 8
    positive[8, 0, 5] = True  # 2
    nibbles = layout.weight_nibbles(positive)
    assert nibbles.shape == (1, 1, 6, 64)  # 4 groups, padded to a multiple of 3
    place = list(layout.TABLE_ORDER).index(8)
    np.testing.assert_array_equal(nibbles[0, 0, :, place], [9, 2] + [0x80] * 4)


def test_pair_table():
    table = layout.pair_table()
    assert table[0b0101 + 17 * 0b1111][0b0100] == 1 + 16 * 3
    assert (table[layout.OUTSIDE + 17 * layout.OUTSIDE] == 2 + 16 * 2).all()
    np.testing.assert_array_equal(table[:, :16], table[:, 16:])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 70), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_stored_bits_round_trip(filters, channels, k, seed):
    positive = np.random.default_rng(seed).random((filters, channels, k, k)) < 0.5
    stored = layout.pack_bits(positive)
    assert stored.shape == (filters, -(-channels * k * k // 8))
    expected = positive.reshape(filters, channels, -1).transpose(0, 2, 1)
    np.testing.assert_array_equal(layout.unpack_bits(stored, channels, k), expected)


def test_border_totals_make_outside_taps_add_nothing():
    # Activation bits 0 everywhere, inside (-1) and outside: what the popcount kernel counts is then popcount(w) of all
    # taps.
    weight = np.where(np.random.default_rng(0).random((5, 7, 3, 3)) < 0.5, 1, -1)
    positive = (weight > 0).reshape(5, 7, 9).transpose(0, 2, 1)
    totals = layout.border_totals(positive, in_words=True)
    counts = positive.sum((1, 2))
    true = binary_accumulators(-np.ones((2, 3, 7)), weight)
    np.testing.assert_array_equal(totals[1 + 4, :5] - 2 * counts, true[0, 0])
    np.testing.assert_array_equal(totals[2, :5] - 2 * counts, true[1, 1])
    single = binary_accumulators(-np.ones((1, 1, 7)), weight)
    np.testing.assert_array_equal(totals[15, :5] - 2 * counts, single[0, 0])


def test_both_pixels_of_a_byte_are_separated_exactly():
    """The formulas at the top of `kernels.lookup`, in NumPy: two counts a byte, summed without a carry."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 13, (16, 2, 32)).astype(np.uint8)  # 16 steps of 3 groups with at most 4 each
    counts[:, :, :8] = 12
    s = counts[:, 0] + 16 * counts[:, 1]
    low = (s & 15).sum(0, dtype=np.uint8)
    mixed = (s.view(np.uint64) >> np.uint64(4)).sum(0, dtype=np.uint64)
    high = mixed - ((low.view(np.uint64) & ~np.uint64(255)) >> np.uint64(4))
    np.testing.assert_array_equal(low, counts[:, 0].sum(0))
    np.testing.assert_array_equal(high.view(np.uint8), counts[:, 1].sum(0))


FORMULAS = {
    "kernels/lookup.py": (
        "    s      = sum over 3 groups of shuffle(table[pair], weights) ",
        "    low   += s & 15 ",
        "    mixed += s >> 4 ",
        "    high   = mixed - ((low without its lowest byte) >> 4) ",
    ),
    "layout.py": (
        "        accumulator = total - 2 * count",
        "        total       = C * (taps inside) + 2 * (count of the taps outside)",
    ),
}


@pytest.mark.parametrize("file", FORMULAS)
def test_formulas_are_on_separate_lines(file):
    """Reflowing would join them and make them unreadable."""
    lines = (Path(layout.__file__).parent / file).read_text(encoding="utf-8").splitlines()
    assert all(any(line.startswith(formula) for line in lines) for formula in FORMULAS[file])


def test_padding():
    padded = layout.pad_last(np.ones((2, 17), np.float32), -np.inf)
    assert padded.shape == (2, 32) and np.isneginf(padded[:, 17:]).all() and padded.ctypes.data % 64 == 0

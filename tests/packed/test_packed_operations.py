"""Every operation of every backend against a slow reference."""

import definitions
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probes import accumulators, signs_of

from bidiffsr_arch.packed.backends import GroupNorm
from bidiffsr_arch.packed.layout import aligned, aligned_copy, pack_bits, pad_last, padded

FEW = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZE = st.integers(1, 9)
CHANNELS = st.one_of(st.integers(1, 70), st.sampled_from([64, 96, 128]))
SEED = st.integers(0, 2**31)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def a_map(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A map whose padding channels contain numbers that must not affect results."""
    return pad_last(normal(rng, *shape), 7.0)


@FEW
@given(SIZE, SIZE, CHANNELS, CHANNELS, st.sampled_from([1, 3]), SEED)
def test_integers(backend, height, width, channels, filters, k, seed):
    rng = np.random.default_rng(seed)
    x, shift = a_map(rng, height, width, channels), normal(rng, channels)
    positive = rng.random((filters, channels, k, k)) < 0.5
    signs = np.where(x[..., :channels] + shift >= 0, 1, -1)
    expected = definitions.binary_accumulators(signs, np.where(positive, 1, -1))
    np.testing.assert_array_equal(accumulators(backend, x, positive, shift), expected)


@pytest.mark.parametrize("width", [63, 64, 65, 130])
def test_integers_in_long_rows(backend, width):
    """Rows are counted in segments of 64 pixels; ends of segments are no borders."""
    rng = np.random.default_rng(width)
    x, shift = a_map(rng, 3, width, 24), normal(rng, 24)
    positive = rng.random((40, 24, 3, 3)) < 0.5
    expected = definitions.binary_accumulators(np.where(x[..., :24] + shift >= 0, 1, -1), np.where(positive, 1, -1))
    np.testing.assert_array_equal(accumulators(backend, x, positive, shift), expected)


@FEW
@given(SIZE, SIZE, CHANNELS, st.sampled_from([1, 3]), SEED)
def test_integers_after_norm_and_swish(backend, height, width, channels, k, seed):
    """Signs may differ from float64's only where the number itself is rounding; the integers follow from the signs."""
    rng = np.random.default_rng(seed)
    x, shift = a_map(rng, height, width, channels), 0.2 * normal(rng, channels)
    gain, bias = normal(rng, channels), normal(rng, channels)
    norm = pad_last(gain), pad_last(bias)
    r = definitions.norm_swish(x[..., :channels], gain, bias) + shift
    signs = signs_of(backend, x, shift, channels, norm)
    assert set(np.unique(signs)) <= {-1.0, 1.0}
    different = signs != np.where(r >= 0, 1, -1)
    assert (np.abs(r[different]) < 1e-5).all()
    positive = rng.random((17, channels, k, k)) < 0.5
    expected = definitions.binary_accumulators(signs, np.where(positive, 1, -1))
    np.testing.assert_array_equal(accumulators(backend, x, positive, shift, norm), expected)


def test_zero_is_positive(backend):
    x = aligned((2, 3, 16))
    signs = signs_of(backend, x, np.zeros(16, np.float32), 16)
    assert (signs == 1).all()


@FEW
@given(SIZE, SIZE, st.sampled_from([8, 20, 64]), st.booleans(), st.booleans(), SEED)
def test_epilogue(backend, height, width, channels, keep, with_gain, seed):
    rng = np.random.default_rng(seed)
    x, shift = a_map(rng, height, width, channels), normal(rng, channels)
    positive = rng.random((channels, channels, 3, 3)) < 0.5
    parameters = pad_last(normal(rng, 4, channels))
    norm = (pad_last(np.ones(channels, np.float32)), pad_last(np.ones(channels, np.float32))) if keep else None
    shortcut, residual = a_map(rng, height, width, channels), a_map(rng, height, width, channels)
    gain = np.abs(normal(rng, height, width)) if with_gain else None
    weight = backend.binary_weight(pack_bits(positive), channels, 3)
    signs = signs_of(backend, x, shift, channels, norm)

    expected = definitions.epilogue(
        definitions.binary_accumulators(signs, np.where(positive, 1, -1)),
        *parameters[:, :channels],
        gain=1.0 if gain is None else gain[..., None],
    )
    expected += definitions.norm_swish(x[..., :channels], 1, 1) if keep else shortcut[..., :channels]
    expected += residual[..., :channels]
    sums = backend.binary_conv(
        x,
        weight,
        pad_last(shift, -np.inf),
        parameters,
        residual,
        norm=norm,
        keep=keep,
        shortcut=None if keep else shortcut,
        residual=residual,
        gain=gain,
    )
    # float32 with a few roundings of numbers up to 9 * 64 * |scale|
    np.testing.assert_allclose(residual[..., :channels], expected, rtol=1e-5, atol=2e-4)
    expected = definitions.sums(residual[..., :channels])
    np.testing.assert_allclose(sums.sum(0)[:, :channels], expected, rtol=1e-4, atol=1e-2)


def test_halves_of_the_channels(backend):
    rng = np.random.default_rng(0)
    x, shift = a_map(rng, 5, 6, 64), normal(rng, 32)
    positive = rng.random((32, 32, 3, 3)) < 0.5
    parameters = pad_last(np.stack([np.ones(32), np.zeros(32), np.ones(32), np.zeros(32)]).astype(np.float32))
    weight, out = backend.binary_weight(pack_bits(positive), 32, 3), aligned((5, 6, 32))
    backend.binary_conv(x, weight, shift, parameters, out, first=32, shortcut=x, shortcut_first=32)
    signs = np.where(x[..., 32:] + shift >= 0, 1, -1)
    expected = definitions.binary_accumulators(signs, np.where(positive, 1, -1)) + x[..., 32:]
    np.testing.assert_allclose(out, expected, atol=1e-4)


@FEW
@given(st.integers(1, 70), SIZE, st.sampled_from([32, 40, 64]), st.sampled_from([3, 16]), st.booleans(), SEED)
def test_conv3x3(backend, height, width, channels, filters, normed, seed):
    rng = np.random.default_rng(seed)
    x, add, residual = a_map(rng, height, width, channels), normal(rng, filters), a_map(rng, height, width, filters)
    weight = normal(rng, filters, channels, 3, 3) / np.float32(np.sqrt(9 * channels))
    gain, bias = normal(rng, channels), normal(rng, channels)
    out = aligned((height, width, padded(filters)))
    norm = (pad_last(gain), pad_last(bias)) if normed else None
    sums = backend.conv3x3(x, backend.conv3x3_weight(weight), pad_last(add), out, norm=norm, residual=residual)
    source = definitions.norm_swish(x[..., :channels], gain, bias) if normed else x[..., :channels]
    expected = definitions.conv3x3(source, weight) + add + residual[..., :filters]
    # Winograd's F(4x4, 3x3) loses about four bits against the definition
    np.testing.assert_allclose(out[..., :filters], expected, atol=5e-5)
    np.testing.assert_allclose(sums.sum(0)[:, :filters], definitions.sums(expected), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("width", [65, 131, 259])
def test_conv3x3_in_long_rows(backend, width):
    """Winograd's algorithm works on strips of up to 128 columns; edges between strips are no borders."""
    rng = np.random.default_rng(width)
    x, weight = a_map(rng, 9, width, 40), normal(rng, 16, 40, 3, 3) / np.sqrt(9 * 40).astype(np.float32)
    out = aligned((9, width, 16))
    sums = backend.conv3x3(x, backend.conv3x3_weight(weight), aligned((16,)), out)
    expected = definitions.conv3x3(x[..., :40], weight)
    np.testing.assert_allclose(out, expected, atol=5e-5)
    np.testing.assert_allclose(sums.sum(0), definitions.sums(expected), rtol=1e-4, atol=1e-2)


def test_swish_of_all_sizes(backend):
    """The error is relative, as a sign may depend on the smallest number; from 87 on, x stays or vanishes."""
    x = np.r_[np.linspace(-80, 80, 4077), 0, -0.0, 1e-30, -1e-30, 300, -300, np.inf, np.nan].astype(np.float32)
    x = np.pad(x, (0, -len(x) % 32)).reshape(2, -1, 16)
    out = aligned(x.shape)
    backend.normalise(aligned_copy(x), (np.ones(16, np.float32), aligned((16,))), out, swish=True)
    large = np.abs(x) > 80
    np.testing.assert_allclose(out[~large], definitions.swish(x[~large].astype(np.float64)), rtol=4e-6)
    np.testing.assert_allclose(out[large], np.where(x[large] > 0, x[large], 0), atol=1e-30)


@FEW
@given(SIZE, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans(), SEED)
def test_pointwise(backend, height, width, channels, filters, two, seed):
    rng = np.random.default_rng(seed)
    x, y, add = a_map(rng, height, width, channels), a_map(rng, height, width, channels), normal(rng, filters)
    a, b = normal(rng, filters, channels), normal(rng, filters, channels)
    out = x if padded(channels) == padded(filters) else aligned((height, width, padded(filters)))
    expected = x[..., :channels].astype(np.float64) @ a.T + add + two * (y[..., :channels].astype(np.float64) @ b.T)
    second = dict(other=y, other_weight=backend.pointwise_weight(b)) if two else {}
    sums = backend.pointwise(x, backend.pointwise_weight(a), pad_last(add), out, **second)
    np.testing.assert_allclose(out[..., :filters], expected, atol=5e-5)
    np.testing.assert_allclose(sums.sum(0)[:, :filters], definitions.sums(expected), rtol=1e-4, atol=1e-2)


@FEW
@given(SIZE, SIZE, st.sampled_from([8, 24, 32]), st.sampled_from([1, 4, 8]), SEED)
def test_group_norm(backend, height, width, channels, groups, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias = a_map(rng, height, width, channels), normal(rng, channels), normal(rng, channels)
    norm = backend.group_norm(GroupNorm(groups, 1e-5, weight, bias), backend.sums(x), height * width)
    expected = definitions.group_norm(x[..., :channels], groups, weight, bias, 1e-5)
    for with_swish, result in ((False, expected), (True, definitions.swish(expected))):
        out = aligned(x.shape)
        backend.normalise(x, norm, out, swish=with_swish)
        # one pixel and one channel a group: the variance is 0, and rounding is divided by sqrt(eps)
        np.testing.assert_allclose(
            out[..., :channels], result, atol=2e-3 if x[..., 0].size * channels == groups else 2e-4
        )


@pytest.mark.parametrize("channels", [4, 16, 36])
def test_space_and_depth(backend, channels):
    rng = np.random.default_rng(0)
    x = a_map(rng, 6, 10, channels)
    deep = aligned((3, 5, padded(4 * channels)))
    sums = backend.space_to_depth(x, channels, deep)
    for c in range(channels):
        for dy in range(2):
            for dx in range(2):
                np.testing.assert_array_equal(deep[..., 4 * c + 2 * dy + dx], x[dy::2, dx::2, c])
    np.testing.assert_allclose(
        sums.sum(0)[:, : 4 * channels], definitions.sums(deep[..., : 4 * channels]), rtol=1e-4, atol=1e-3
    )
    back = aligned((6, 10, padded(channels + 3)))
    backend.depth_to_space(deep, 4 * channels, back, 3)
    np.testing.assert_array_equal(back[..., 3 : channels + 3], x[..., :channels])


@pytest.mark.parametrize("channels", [10, 64, 80])
def test_exchange(backend, channels):
    rng = np.random.default_rng(0)
    x, y = a_map(rng, 3, 4, channels), a_map(rng, 3, 4, channels)
    s1, s2 = aligned(x.shape), aligned(x.shape)
    backend.exchange(x, y, channels, s1, s2)
    real_x, real_y = x[..., :channels], y[..., :channels]
    np.testing.assert_array_equal(s1[..., :channels], np.concatenate([real_x[..., 1::2], real_y[..., 0::2]], 2))
    np.testing.assert_array_equal(s2[..., :channels], np.concatenate([real_x[..., 0::2], real_y[..., 1::2]], 2))

"""`imresize` gives MATLAB's pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bidiffsr_arch.data.resize import axis_taps, cubic, imresize
from bidiffsr_arch.files import read_image

SIDES = st.integers(1, 10)
IMAGES = arrays(np.uint8, st.tuples(SIDES, SIDES) | st.tuples(SIDES, SIDES, st.integers(1, 4)))
SCALES = st.sampled_from([1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0, 1.5, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("scale", [2, 4])
def test_equals_the_published_lr_images_of_set5(benchmark_root, scale):
    originals = sorted((benchmark_root / "Set5" / "HR").glob("*.png"))
    assert len(originals) == 5
    for path in originals:
        image = read_image(path)
        height, width = (side // scale * scale for side in image.shape[:2])
        published = read_image(benchmark_root / "Set5" / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png")
        np.testing.assert_array_equal(imresize(image[:height, :width], 1 / scale), published, err_msg=path.name)


@pytest.mark.parametrize(
    ("x", "value"),
    [(0, 1), (0.25, 111 / 128), (-0.75, 29 / 128), (1, 0), (1.25, -9 / 128), (1.75, -3 / 128), (2, 0), (-2.5, 0)],
)
def test_cubic_kernel(x, value):
    assert cubic(np.array(x)) == value


def test_taps_of_halving():
    # The first of two output samples lies at 1.5 (input samples are at 1 .. 4). Antialiasing halves the distances 0.5,
    # 1.5, 2.5, 3.5 to its taps at -2 .. 5 and the weights; samples 0, -1, -2 and 5 mirror to 1, 2, 3 and 4.
    indices, weights = axis_taps(4, 1 / 2)
    np.testing.assert_array_equal(indices[0], [2, 1, 0, 0, 1, 2, 3, 3])
    np.testing.assert_array_equal(weights[0] * 256, [-3, -9, 29, 111, 111, 29, -9, -3])


@pytest.mark.parametrize(
    ("row", "scale", "expected"),
    [
        # Taps as above: (-3 * 90 + 29 * 90 - 9 * 250 - 3 * 250) / 256 < 0 is clipped;
        # (111 * 90 + 111 * 250 + 29 * 250 - 9 * 90) / 256 = 172.58.
        ([0, 0, 90, 250], 1 / 2, [0, 173]),
        # Weights (-3, 29, 111, -9) / 128 or their mirror image; the right one of the two samples, with its mirror
        # images, gets -12, 26, 102 and 140 of 128 parts.
        ([0, 100], 2, [0, 20, 80, 109]),
        # 26 / 128 * 32 = 6.5 and 102 / 128 * 32 = 25.5: halves go up, to the even number or not.
        ([0, 32], 2, [0, 7, 26, 35]),
    ],
)
def test_rows_worked_by_hand(row, scale, expected):
    row = np.array([row], np.uint8)
    np.testing.assert_array_equal(imresize(np.repeat(row, 4, axis=0), scale)[0], expected)
    np.testing.assert_array_equal(imresize(np.repeat(row.T, 4, axis=1), scale)[:, 0], expected)


def test_rounds_between_the_axes():
    # The right column becomes 0, 7 (6.5 rounded), 26, 35; 102 / 128 of 7 is 5.58, of 6.5 it would be 5.18.
    expected = [[0, 0, 0, 0], [0, 1, 6, 8], [0, 5, 21, 28], [0, 7, 28, 38]]
    np.testing.assert_array_equal(imresize(np.array([[0, 0], [0, 32]], np.uint8), 2), expected)


@given(length=st.integers(1, 40), scale=SCALES)
def test_taps_are_weighted_means_of_samples_inside(length, scale):
    indices, weights = axis_taps(length, scale)
    assert indices.shape == weights.shape
    assert len(indices) == math.ceil(length * scale)
    assert indices.min() >= 0
    assert indices.max() < length
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-14)  # a few units in the last place of float64


@given(image=IMAGES, scale=SCALES)
def test_size_is_rounded_up_and_channels_stay(image, scale):
    resized = imresize(image, scale)
    height, width, *channels = image.shape
    assert resized.shape == (math.ceil(height * scale), math.ceil(width * scale), *channels)
    assert resized.dtype == np.uint8


@given(shape=st.tuples(SIDES, SIDES), value=st.integers(0, 255), scale=SCALES)
def test_constant_images_stay_constant(shape, value, scale):
    assert np.all(imresize(np.full(shape, value, np.uint8), scale) == value)


@given(image=IMAGES)
def test_scale_1_changes_nothing(image):
    np.testing.assert_array_equal(imresize(image, 1), image)


@given(image=IMAGES, scale=st.sampled_from([1 / 4, 1 / 2, 2.0, 4.0]), axis=st.sampled_from([0, 1]))
def test_mirrored_images_give_mirrored_results(image, scale, axis):
    # Sides are multiples of 4, so that no output sample hangs over the end. At these scales all sums are exact.
    image = image.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(imresize(np.flip(image, axis), scale), np.flip(imresize(image, scale), axis))


@given(image=arrays(np.uint8, (8, 7, 3)), scale=SCALES)
def test_channels_do_not_mix(image, scale):
    apart = [imresize(np.ascontiguousarray(image[..., channel]), scale) for channel in range(3)]
    np.testing.assert_array_equal(imresize(image, scale), np.stack(apart, axis=-1))


@pytest.mark.parametrize(
    ("image", "scale", "error"),
    [
        (np.zeros((4, 4), np.float32), 2, TypeError),
        (np.zeros(4, np.uint8), 2, ValueError),
        (np.zeros((0, 4), np.uint8), 2, ValueError),
        (np.zeros((4, 4), np.uint8), 0, ValueError),
        (np.zeros((4, 4), np.uint8), math.nan, ValueError),
    ],
)
def test_error_messages(image, scale, error):
    with pytest.raises(error, match="expected"):
        imresize(image, scale)

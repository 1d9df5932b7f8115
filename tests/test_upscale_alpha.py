"""Colours of hidden pixels do not bleed into visible ones, in every format with alpha."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.upscale.alpha import fill_hidden, unpremultiplied, with_transparent_colour
from bidiffsr_arch.upscale.photo import Photo, read_photo, write_photo

SIDE = 24


def disc(channels: int, dtype: type, hidden: int = 0) -> np.ndarray:
    """A white disc on transparent `hidden`, with a soft edge."""
    down, across = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    opacity = np.clip(SIDE / 3 - np.hypot(down, across) + 0.5, 0, 1)
    white = np.iinfo(dtype).max
    image = np.full((SIDE, SIDE, channels), hidden, dtype)
    image[opacity > 0] = white
    image[..., -1] = np.rint(opacity * white)
    return image


def over_white(image: np.ndarray) -> np.ndarray:
    """The image on a white background, in 0..1."""
    white = np.iinfo(image.dtype).max
    alpha = image[..., -1:] / white
    return image[..., :-1] / white * alpha + 1 - alpha


def stored(path: Path, image: np.ndarray, associated: bool) -> None:
    """Write the file as other programs do."""
    if path.suffix == ".tif":
        pixels = image.copy()
        if associated:
            pixels[..., :-1] = np.rint(image[..., :-1] * (image[..., -1:] / np.iinfo(image.dtype).max))
        tifffile.imwrite(
            path, pixels, photometric="rgb" if image.shape[2] == 4 else "minisblack", planarconfig="contig",
            extrasamples=["assocalpha" if associated else "unassalpha"],
        )  # fmt: skip
    elif image.dtype == np.uint16:
        write_photo(path, Photo(image))
    else:
        options = {".webp": {"lossless": True, "exact": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}
        Image.fromarray(image).save(path, **options.get(path.suffix, {}))


CASES = [
    (suffix, channels, dtype, associated, hidden)
    for suffix, dtypes in {".png": (np.uint8, np.uint16), ".tif": (np.uint8, np.uint16), ".webp": (np.uint8,),
                           ".avif": (np.uint8,)}.items()
    for dtype in dtypes
    for channels in ((2, 4) if suffix in (".png", ".tif") else (4,))
    for associated in ((False, True) if suffix == ".tif" else (False,))
    for hidden in ((0,) if associated else (0, 90))
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "channels", "dtype", "associated", "hidden"), CASES)
def test_a_white_disc_has_no_rim(tmp_path, suffix, channels, dtype, associated, hidden):
    """On a white background everything is white, for any colour of hidden pixels."""
    image = disc(channels, dtype, hidden)
    stored(tmp_path / f"a{suffix}", image, associated)
    read = read_photo(tmp_path / f"a{suffix}").pixels
    assert read.dtype == dtype and read.shape == image.shape
    lossy = suffix == ".avif" or (associated and dtype == np.uint8)
    np.testing.assert_allclose(read[..., -1] / np.iinfo(dtype).max, image[..., -1] / np.iinfo(dtype).max,
                               atol=0.02 if lossy else 0)  # fmt: skip
    filled = fill_hidden(read).astype(np.float64)
    for scale in (2, 4):
        planes = np.stack([
            upsample(_planes(filled[..., channel]), scale)[0, 0].numpy() for channel in range(channels)
        ], -1)  # fmt: skip
        result = planes.round().clip(0, np.iinfo(dtype).max).astype(dtype)
        assert over_white(result).min() > 1 - (0.04 if lossy else 0.001)


def _planes(plane: np.ndarray):
    import torch

    return torch.tensor(plane)[None, None].float()


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 4]), st.sampled_from([np.uint8, np.uint16]),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_hidden_pixels_take_the_nearest_visible_colour_and_nothing_else_changes(height, width, channels, dtype, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    image[rng.random((height, width)) < 0.6, -1] = 0
    filled, hidden = fill_hidden(image), image[..., -1] < 0.01 * np.iinfo(dtype).max
    np.testing.assert_array_equal(filled[..., -1], image[..., -1])
    np.testing.assert_array_equal(filled[~hidden], image[~hidden])
    if hidden.all():
        np.testing.assert_array_equal(filled, image)
        return
    places = np.argwhere(~hidden)
    for place in np.argwhere(hidden):
        distances = np.hypot(*(places - place).T)
        # OpenCV's distances are those of a 5x5 mask: up to 2 % off, so of two that are nearly as near either may win.
        near = places[distances <= distances.min() * 1.05]
        assert any((filled[tuple(place)][:-1] == image[tuple(one)][:-1]).all() for one in near)


def test_images_without_alpha_are_not_changed():
    for shape in ((4, 5), (4, 5, 3)):
        image = np.zeros(shape, np.uint8)
        assert fill_hidden(image) is image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_colours_are_divided(dtype, channels):
    rng, white = np.random.default_rng(0), np.iinfo(dtype).max
    straight = rng.integers(0, white, (20, 30, channels), dtype, endpoint=True)
    alpha = np.maximum(straight[..., -1:], white // 8)
    straight[..., -1:] = alpha
    stored_pixels = straight.copy()
    stored_pixels[..., :-1] = np.rint(straight[..., :-1] * (alpha / white))
    # Half a step of the stored value becomes 4 steps where the opacity is 1/8.
    assert np.abs(unpremultiplied(stored_pixels).astype(int) - straight).max() <= 4


def test_deflated_and_lzw_tiffs_with_associated_alpha_of_16_bits_agree(tmp_path):
    """LZW goes another way, through OpenCV."""
    image = disc(4, np.uint16)
    image[..., :-1] = image[..., :-1] * (image[..., -1:] / 65535)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["assocalpha"], compression="zlib")
    cv2.imwrite(str(tmp_path / "b.tif"), image[..., [2, 1, 0, 3]], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels[..., -1], image[..., -1])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        associated = tifffile.EXTRASAMPLE.ASSOCALPHA in file.pages[0].extrasamples
    expected = unpremultiplied(image) if associated else image
    np.testing.assert_array_equal(read_photo(tmp_path / "b.tif").pixels, expected)


def test_a_transparent_colour_becomes_alpha():
    gray = np.array([[0, 7], [7, 9]], np.uint16)
    result = with_transparent_colour(gray, np.array(7, np.uint16))
    np.testing.assert_array_equal(result[..., 0], gray)
    np.testing.assert_array_equal(result[..., 1], [[65535, 0], [0, 65535]])
    colour = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8)
    result = with_transparent_colour(colour, np.array([1, 2, 3], np.uint8))
    np.testing.assert_array_equal(result[..., 3], [[0, 255]])


def png(image: Image.Image, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    buffer.seek(0)
    return buffer


def test_pillow_images_have_no_rim_either(bicubic_upscaler):
    """A palette with a transparent entry, as GIFs and small PNGs have."""
    palette = Image.fromarray(np.where(disc(4, np.uint8)[..., 3] > 0, 1, 0).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    result = np.asarray(bicubic_upscaler(Image.open(png(palette, transparency=0))))
    assert result.shape == (2 * SIDE, 2 * SIDE, 4) and over_white(result).min() > 0.98

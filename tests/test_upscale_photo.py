"""Image files: every format, depth and layout is read and written with its metadata."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale.photo import Photo, photo_size, read_photo, to_pillow, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAYOUTS = {"gray": (), "gray+alpha": (2,), "colour": (3,), "colour+alpha": (4,)}
EXACT = {".png": "gray gray+alpha colour colour+alpha", ".tif": "gray gray+alpha colour colour+alpha",
         ".bmp": "gray colour colour+alpha"}  # fmt: skip


def pixels(channels: tuple[int, ...], dtype: type = np.uint8, size: tuple[int, int] = (7, 5)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, *channels), dtype, endpoint=True)


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Maker"
    tags.get_ifd(0x8769).update({0xA002: 5, 0xA003: 7})
    return tags.tobytes()


@pytest.mark.parametrize(("suffix", "layout"), [(key, name) for key, names in EXACT.items() for name in names.split()])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_survive_writing_and_reading(tmp_path, suffix, layout, dtype):
    photo = Photo(pixels(LAYOUTS[layout], dtype))
    path = tmp_path / f"a{suffix}"
    if suffix == ".bmp" and dtype is np.uint16:
        with pytest.raises(InputError, match="expected a PNG or TIFF for 16 bits"):
            write_photo(path, photo)
        assert list(tmp_path.iterdir()) == []
        return
    write_photo(path, photo)
    assert photo_size(path) == (7, 5)
    read = read_photo(path)
    assert read.pixels.dtype == dtype
    np.testing.assert_array_equal(read.pixels, photo.pixels)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
@pytest.mark.parametrize("layout", ["gray", "colour", "colour+alpha"])
def test_lossy_formats_lose_little(tmp_path, suffix, layout):
    smooth = np.tile(np.linspace(40, 200, 32)[:, None], (1, 32)).astype(np.uint8)
    photo = Photo(np.stack([smooth] * 4, -1)[..., : LAYOUTS[layout][0]] if LAYOUTS[layout] else smooth)
    path = tmp_path / f"a{suffix}"
    if layout == "colour+alpha" and suffix != ".webp":
        with pytest.raises(InputError, match="expected a format with transparency"):
            write_photo(path, photo)
        return
    write_photo(path, photo)
    read = read_photo(path).pixels
    if layout == "gray" and suffix == ".webp":  # WebP has no gray
        read = read[..., 0]
    assert np.abs(read.astype(int) - photo.pixels).max() <= 4


def shown(photo: Photo) -> np.ndarray:
    """The pixels as shown by a viewer that applies the orientation."""
    tags = Image.Exif()
    tags.load(photo.metadata.get("exif", b""))
    return {1: photo.pixels, 6: np.rot90(photo.pixels, -1)}[tags.get(0x0112, 1)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_profile_orientation_and_resolution_survive(tmp_path, suffix, dtype):
    if dtype is np.uint16 and suffix in (".jpg", ".webp"):
        pytest.skip("a format of 8 bits")
    path = tmp_path / f"a{suffix}"
    original = Photo(np.full((7, 5, 3), 9, dtype), {"icc_profile": SRGB, "exif": exif(), "dpi": (300.0, 300.0)})
    original.pixels[0] = 200
    write_photo(path, original)
    with Image.open(path) as image:  # others' readers see it, too
        assert image.info["icc_profile"] == SRGB and image.getexif()[0x0112] == 6
    for _ in range(2):  # what was read is written and read again
        photo = read_photo(path)
        assert photo.metadata["icc_profile"] == SRGB
        if suffix != ".webp":
            assert photo.metadata["dpi"] == pytest.approx((300, 300), abs=0.1)
        np.testing.assert_allclose(shown(photo).astype(int), shown(original), atol=0 if suffix in EXACT else 40)
        write_photo(path, photo)


def test_exif_has_the_new_size():
    photo = Photo(pixels((3,)), {"exif": exif()}).resized(pixels((3,), size=(14, 10)))
    tags = Image.Exif()
    tags.load(photo.metadata["exif"])
    assert (tags.get_ifd(0x8769)[0xA002], tags.get_ifd(0x8769)[0xA003]) == (10, 14)
    assert tags[0x010F] == "Maker"


def test_palettes_bits_and_cmyk_become_the_colours_they_show(tmp_path):
    colours = Image.fromarray(pixels((3,))).quantize(4)
    colours.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "palette.png").pixels, np.asarray(colours.convert("RGB")))
    colours.save(tmp_path / "hole.png", transparency=0)
    assert read_photo(tmp_path / "hole.png").pixels.shape == (7, 5, 4)
    Image.fromarray(pixels(()) > 99).save(tmp_path / "bits.png")
    assert set(np.unique(read_photo(tmp_path / "bits.png").pixels)) == {0, 255}
    Image.new("CMYK", (5, 7), (0, 255, 255, 0)).save(tmp_path / "inks.jpg")
    red, green, blue = read_photo(tmp_path / "inks.jpg").pixels[3, 2]
    assert red > 200 and green < 60 and blue < 60


def test_the_format_is_recognised_by_the_content_not_by_the_name(tmp_path):
    Image.fromarray(pixels((3,))).save(tmp_path / "really.png", "BMP")
    np.testing.assert_array_equal(read_photo(tmp_path / "really.png").pixels, pixels((3,)))


def test_compressed_16_bit_tiffs_of_others_are_read(tmp_path):
    image = pixels((3,), np.uint16)
    cv2.imwrite(str(tmp_path / "lzw.tif"), image[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(read_photo(tmp_path / "lzw.tif").pixels, image)


def test_pillow_has_no_16_bit_colour():
    with pytest.raises(InputError, match="16-bit colour; use a NumPy array"):
        to_pillow(Photo(pixels((3,), np.uint16)))


def png_of(width: int, height: int) -> bytes:
    """The header of a PNG that claims a size, and nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def content(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels((3,), size=(40, 40))).save(buffer, kind, **options)
    return buffer.getvalue()


others = [Image.fromarray(pixels((3,), size=(40, 40)) // 2)]
BAD = {
    "text.png": b"no image at all",
    "empty.jpg": b"",
    "half.jpg": content("JPEG")[:700],
    "half.png": content("PNG")[:900],
    "half.webp": content("WEBP")[:200],
    "half.tif": content("TIFF")[:200],
    "half.bmp": content("BMP")[:500],
    "header.png": png_of(5, 5),
    "bomb.png": png_of(2**20, 2**20),
    "gif.png": content("GIF"),
    "moving.png": content("PNG", save_all=True, append_images=others),
    "moving.webp": content("WEBP", save_all=True, append_images=others),
    "pages.tif": content("TIFF", save_all=True, append_images=others),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_image_is_named_in_one_line(tmp_path, name):
    path = Path(tmp_path, name)
    path.write_bytes(BAD[name])
    with pytest.raises(InputError, match=name) as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)


def test_more_than_16_bits_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match=r"samples of 8 or 16 bits.*32 bits, float"):
        read_photo(tmp_path / "float.tif")

"""EXIF and GPS of TIFF files: kept with new offsets, and never in the way of pixels."""

import io
import random
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bidiffsr_arch.upscale.exif import block_of, with_tags
from bidiffsr_arch.upscale.ifd import BrokenDirectory
from bidiffsr_arch.upscale.metadata import MetadataWarning
from bidiffsr_arch.upscale.photo import read_photo, write_photo

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
EXIF, GPS, INTEROPERABILITY, MAKER_NOTE, ORIENTATION = 0x8769, 0x8825, 0xA005, 0x927C, 0x0112
DETAILS = {0xA002: 12, 0xA003: 16, 0x829A: 0.01, 0x9286: b"ASCII\0\0\0a comment", 0xA434: "A lens of 50 mm"}
PLACE = {1: "N", 2: (52.0, 31.0, 12.5), 29: "2024:05:06"}
MUTATIONS = 250


def exif(order: str = "<", notes: bytes = b"") -> Image.Exif:
    tags = Image.Exif()
    tags.endian = order
    tags[0x010F] = "A maker"
    tags.get_ifd(EXIF).update(DETAILS | ({MAKER_NOTE: notes} if notes else {}))
    tags.get_ifd(GPS).update(PLACE)
    return tags


def tiff_of(order: str, dtype: type, orientation: int = 1) -> bytes:
    """A TIFF as other programs write it, with directories in its byte order."""
    buffer = io.BytesIO()
    pixels = PIXELS.astype(dtype) * (np.iinfo(dtype).max // 255)
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(buffer, pixels, byteorder=order, photometric="rgb", metadata=None, extratags=tags)
    return with_tags(buffer.getvalue(), exif(order).tobytes(), (EXIF, GPS, 0x010F))


def doubled(source: Path, target: Path | None = None) -> Path:
    """The image at twice the size."""
    photo, target = read_photo(source), target or source
    write_photo(target, photo.resized(photo.pixels.repeat(2, 0).repeat(2, 1)))
    return target


def check_tags(path: Path, width: int, height: int) -> None:
    with Image.open(path) as image:
        tags = image.getexif()
        details = tags.get_ifd(EXIF)
        assert {**details} == DETAILS | {0xA002: width, 0xA003: height}
        assert {**tags.get_ifd(GPS)} == PLACE


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_keeps_exif_and_gps(tmp_path, dtype, order, orientation):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(order, dtype, orientation))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = read_photo(path).pixels
        doubled(path)
    check_tags(path, *expected.shape[1::-1] * np.array(2))
    np.testing.assert_array_equal(read_photo(path).pixels, expected.repeat(2, 0).repeat(2, 1))
    with Image.open(path) as image:
        assert image.tag_v2[0x010F] == "A maker" and image.size == ((24, 32) if orientation == 1 else (32, 24))


def test_a_copy_of_a_copy_is_the_same(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of("<", np.uint8))
    first = block_of(path.read_bytes(), (EXIF, GPS))
    write_photo(path, read_photo(path))
    assert block_of(path.read_bytes(), (EXIF, GPS)) == first


def test_other_formats_named_tif_and_tiffs_named_otherwise_keep_exif(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).save(path, "JPEG", quality=95, exif=exif())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_tags(doubled(path), 24, 32)
    with Image.open(path) as image:
        assert image.format == "TIFF" and image.tag_v2[0x010F] == "A maker"
    for suffix in (".jpg", ".png", ".webp"):
        check_tags(doubled(path, tmp_path / f"b{suffix}"), 48, 64)


def test_directories_within_exif_are_kept_and_makers_notes_named(tmp_path):
    path = tmp_path / "a.tif"
    block = bytearray(exif(notes=b"offsets count from elsewhere").tobytes().removeprefix(b"Exif\0\0"))
    inner = struct.pack("<HHHI4sI", 1, 1, 2, 4, b"R98\0", 0)
    place = block.index(struct.pack("<H", MAKER_NOTE))
    block[place : place + 12] = struct.pack("<HHII", INTEROPERABILITY, 4, 1, len(block))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", metadata=None)
    path.write_bytes(with_tags(buffer.getvalue(), bytes(block) + inner, (EXIF, GPS)))
    doubled(path)
    with Image.open(path) as image:
        assert image.getexif().get_ifd(EXIF)[0x9286] == DETAILS[0x9286]
        assert image.getexif().get_ifd(INTEROPERABILITY) == {1: "R98"}
    Image.fromarray(PIXELS).save(path, exif=exif(notes=b"offsets count from elsewhere").tobytes())
    with pytest.warns(MetadataWarning, match="MakerNote"):
        check_tags(doubled(path), 24, 32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_broken_directories_never_stop_a_tiff(tmp_path, dtype):
    whole, path = tiff_of("<", dtype), tmp_path / "a.tif"
    expected = PIXELS.astype(dtype) * (np.iinfo(dtype).max // 255)
    (first,) = struct.unpack_from("<I", whole, 4)
    start = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little") + 4  # behind the first directory
    for number in range(MUTATIONS):
        chance, broken = random.Random(number), bytearray(whole)
        for _ in range(chance.randint(1, 12)):
            place = chance.randrange(start, len(broken) - 4)
            value = chance.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", chance.randbytes(4)])
            broken[place : place + 4] = value
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(read_photo(path).pixels, expected)
            doubled(path)
            assert read_photo(path).pixels.shape == (32, 24, 3)


def test_a_directory_that_ends_after_the_file_is_dropped_and_said(tmp_path):
    whole, path = tiff_of("<", np.uint8), tmp_path / "a.tif"
    entry = whole.index(struct.pack("<HHI", EXIF, 4, 1))
    broken = whole[: entry + 8] + b"\xff\xff\xff\x7f" + whole[entry + 12 :]
    with pytest.raises(BrokenDirectory):
        block_of(broken, (EXIF,))
    path.write_bytes(broken)
    with pytest.warns(MetadataWarning, match="EXIF cannot be read"):
        doubled(path)


def test_directories_that_contain_themselves_end(tmp_path):
    whole, path = tiff_of("<", np.uint8), tmp_path / "a.tif"
    entry = whole.index(struct.pack("<HHI", EXIF, 4, 1))
    path.write_bytes(whole[: entry + 8] + whole[4:8] + whole[entry + 12 :])  # EXIF's directory is the first one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubled(path)
    assert path.stat().st_size < 10 * len(whole)


def test_xmp_of_a_tiff_that_was_turned_says_so(tmp_path):
    path, xmp = tmp_path / "a.tif", b'<x tiff:Orientation="6" tiff:ImageWidth="12"/>'
    for dtype, orientation in ((np.uint8, b"1"), (np.uint16, b"6")):  # Pillow turns 8 bits; 16 stay with their tag
        tags = [(ORIENTATION, "H", 1, 6, True), (700, 1, len(xmp), xmp, True)]
        tifffile.imwrite(path, PIXELS.astype(dtype), photometric="rgb", metadata=None, extratags=tags)
        assert b'tiff:Orientation="%s"' % orientation in read_photo(path).metadata["xmp"]

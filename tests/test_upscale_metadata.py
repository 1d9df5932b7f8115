"""Metadata of images: never an error, kept if it applies to the result, reported if it is dropped."""

import io
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin, features

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale import tiff
from bidiffsr_arch.upscale.metadata import MetadataWarning, orientation_exif, orientation_of, resized, with_values
from bidiffsr_arch.upscale.photo import Photo, photo_size, read_photo, write_photo

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
MUTATIONS = {"JPEG": 270, "PNG": 270, "WEBP": 270, "TIFF": 60, "AVIF": 60}  # the last two are slow to write
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", *["AVIF"] * features.check("avif")]
SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif", "BMP": ".bmp"}


def whole_exif(orientation: int | None = None) -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x011A], tags[0x0128] = "Maker", 72.0, 2
    if orientation is not None:
        tags[0x0112] = orientation
    tags.get_ifd(0x8769).update({0xA002: 12, 0xA003: 16, 0xA001: 1, 0x829A: 0.01, 0x927C: b"notes"})
    tags.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return tags.tobytes()


EXIF, UPRIGHT = whole_exif(orientation=6), whole_exif()


def mutated(content: bytes, number: int, keep: int) -> bytes:
    """One of many broken forms; the first `keep` bytes and the length stay, so that containers still find it."""
    chance = random.Random(number)
    broken = bytearray(content)
    match number % 5:
        case 0:  # a few bits
            for _ in range(chance.randint(1, 8)):
                broken[chance.randrange(keep, len(broken))] ^= 1 << chance.randrange(8)
        case 1:  # bytes of any value
            for _ in range(chance.randint(1, 20)):
                broken[chance.randrange(keep, len(broken))] = chance.randrange(256)
        case 2:  # offsets, counts and types beyond everything
            for _ in range(chance.randint(1, 3)):
                place = chance.randrange(keep, len(broken) - 4)
                broken[place : place + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        case 3:  # the rest is missing
            place = chance.randrange(keep, len(broken))
            broken[place:] = bytes(len(broken) - place)
        case _:  # a part stands where another should
            start, stop = sorted(chance.sample(range(keep, len(broken)), 2))
            part = broken[start:stop]
            place = chance.randrange(keep, len(broken) - len(part) + 1)
            broken[place : place + len(part)] = part
    return bytes(broken)


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **{"quality": 95} | options)
    return buffer.getvalue()


def png_with(name: bytes, data: bytes, content: bytes | None = None) -> bytes:
    content = content or saved("PNG")
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content[:33] + chunk + content[33:]


def jpeg_with(marker: int, data: bytes) -> bytes:
    content = saved("JPEG")
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]


def with_exif(kind: str, exif: bytes) -> bytes:
    """A file with arbitrary bytes as EXIF."""
    body = exif.removeprefix(b"Exif\0\0")
    if kind == "JPEG":
        return jpeg_with(0xE1, b"Exif\0\0" + body)
    if kind == "PNG":
        return png_with(b"eXIf", body)
    # Pillow writes an AVIF's orientation as a property of its own, and the rest without it.
    original = UPRIGHT if kind == "AVIF" else EXIF
    whole = saved(kind, exif=original)
    assert whole.count(original.removeprefix(b"Exif\0\0")) == 1 and len(exif) == len(original)
    return whole.replace(original.removeprefix(b"Exif\0\0"), body)


def with_profile(kind: str, profile: bytes) -> bytes:
    if kind == "PNG":
        return png_with(b"iCCP", b"x\0\0" + zlib.compress(profile))
    return saved(kind, icc_profile=profile)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings are expected, of ours and of Pillow's, which opens results here; tests of warnings catch them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_pixels(path: Path, expected: np.ndarray, content: bytes) -> None:
    """Read, resize, write and read again: the pixels are those of the file without metadata."""
    path.write_bytes(content)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, expected)
    large = photo.resized(photo.pixels.repeat(2, 0).repeat(2, 1))
    write_photo(path, large)
    again = read_photo(path)
    assert again.pixels.shape == large.pixels.shape
    if path.suffix in (".png", ".tif"):
        np.testing.assert_array_equal(again.pixels, large.pixels)
    with Image.open(path) as image:
        image.load()


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "TIFF"])
def test_broken_exif_never_stops_an_image(tmp_path, kind):
    plain = tmp_path / f"plain{SUFFIX[kind]}"
    plain.write_bytes(saved(kind))
    expected = read_photo(plain).pixels
    exif = UPRIGHT if kind == "AVIF" else EXIF
    cases = {with_exif(kind, mutated(exif, number, keep=8)) for number in range(MUTATIONS[kind])}
    assert len(cases) > MUTATIONS[kind] * 0.9  # some come out alike
    for content in cases:
        check_pixels(tmp_path / f"a{SUFFIX[kind]}", expected, content)


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_profiles_never_stop_an_image(tmp_path, kind):
    plain = tmp_path / f"plain{SUFFIX[kind]}"
    plain.write_bytes(saved(kind))
    expected = read_photo(plain).pixels
    cases = {with_profile(kind, mutated(SRGB, number, keep=0)) for number in range(MUTATIONS[kind])}
    assert len(cases) > MUTATIONS[kind] * 0.9  # some come out alike
    for content in cases:
        check_pixels(tmp_path / f"a{SUFFIX[kind]}", expected, content)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_broken_profiles_never_stop_cmyk(tmp_path, kind):
    inks = Image.fromarray(PIXELS).convert("CMYK")
    profiles = [mutated(SRGB, number, keep=0) for number in range(100)] + [SRGB, b"", b"x"]
    for profile in profiles:
        inks.save(tmp_path / f"a{SUFFIX[kind]}", kind, icc_profile=profile)
        photo = read_photo(tmp_path / f"a{SUFFIX[kind]}")
        assert photo.pixels.shape == (16, 12, 3) and "icc_profile" not in photo.metadata
        assert np.abs(photo.pixels.astype(int) - PIXELS).mean() < 40


def tag(number: int, kind: int, count: int, value: bytes) -> bytes:
    """EXIF with one tag of any type."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, number, kind, count, value.ljust(4, b"\0")[:4], 0)


WRONG_TYPES = {
    f"tag {number:04x} of type {kind}, {count} times": tag(number, kind, count, b"\x41\0\0\x42")
    for number in (0x0103, 0x0112, 0x011A, 0x0128, 0x8769, 0x8825, 0xA002)
    for kind in (0, 1, 2, 3, 4, 5, 7, 10, 11, 12, 13, 99)
    for count in (0, 1, 2, 2**31)
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_wrong_types_in_exif_never_stop_an_image(tmp_path, kind):
    plain = tmp_path / f"plain{SUFFIX[kind]}"
    plain.write_bytes(saved(kind))
    expected = read_photo(plain).pixels
    for exif in WRONG_TYPES.values():
        check_pixels(tmp_path / f"a{SUFFIX[kind]}", expected, with_exif(kind, exif))


LONG = zlib.compress(b"x" * 2**21)
BAD_CHUNKS = {
    "a zTXt of 2 MB": (b"zTXt", b"k\0\0" + LONG),
    "an iTXt of 2 MB": (b"iTXt", b"k\0\1\0\0\0" + LONG),
    "a zTXt packed in another way": (b"zTXt", b"k\0\7" + LONG[:50]),
    "a zTXt that is cut": (b"zTXt", b"k\0\0" + LONG[:20]),
    "an empty tEXt": (b"tEXt", b""),
    "an iTXt without parts": (b"iTXt", b"k"),
    "a profile that is cut": (b"iCCP", b"k\0\0" + zlib.compress(SRGB)[:300]),
    "a profile that inflates without end": (b"iCCP", b"k\0\0" + zlib.compress(bytes(2**27))),
    "an iCCP without a name": (b"iCCP", b""),
    "a short gAMA": (b"gAMA", b"\0"),
    "a short cHRM": (b"cHRM", b"\0" * 9),
    "an empty sRGB": (b"sRGB", b""),
    "a short pHYs": (b"pHYs", b"\0" * 3),
    "a pHYs of zeros": (b"pHYs", bytes(8) + b"\1"),
    "a long tRNS": (b"tRNS", bytes(50)),
    "an empty eXIf": (b"eXIf", b""),
    "a short tIME": (b"tIME", b"\0"),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_never_stop_a_png(tmp_path, name):
    check_pixels(tmp_path / "a.png", PIXELS, png_with(*BAD_CHUNKS[name]))


@pytest.mark.parametrize("name", ["a zTXt of 2 MB", "a profile that is cut", "a short gAMA"])
def test_dropped_metadata_is_reported(tmp_path, name):
    path = tmp_path / "a.png"
    path.write_bytes(png_with(*BAD_CHUNKS[name]))
    with pytest.warns(MetadataWarning, match=r"dropped"):
        read_photo(path)


def test_a_chunk_with_a_wrong_checksum_is_dropped(tmp_path):
    content = bytearray(png_with(b"tEXt", b"Title\0x"))
    content[33 + 8 + 3] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.warns(MetadataWarning, match="tEXt is damaged"):
        np.testing.assert_array_equal(read_photo(tmp_path / "a.png").pixels, PIXELS)


def test_damaged_pixels_stay_damaged(tmp_path):
    """Checksums of pixels are still verified."""
    content = bytearray(saved("PNG"))
    content[content.index(b"IDAT") + 20] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize(("segments", "said"), [
    ([(0xE2, b"ICC_PROFILE\0\1\2" + SRGB[:9])], "is incomplete"),
    ([(0xE2, b"ICC_PROFILE\0")], "is incomplete"),
    ([(0xE2, b"MPF\0" + bytes(30))], "previews or a gain map"),
    ([(0xEB, b"JP" + bytes(30))], "APP11"),
    ([(0xE1, b"Exif\0\0XX")], "EXIF cannot be read"),
])  # fmt: skip
def test_bad_segments_never_stop_a_jpeg_and_are_reported(tmp_path, segments, said):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with(*segments[0]))
    with pytest.warns(MetadataWarning, match=said):
        read_photo(path).resized(PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("profile", ["CMYK", "broken"])
def test_wrong_and_broken_profiles_of_rgb_are_passed_on_and_reported(tmp_path, kind, profile):
    foreign = bytearray(SRGB)
    foreign[16:20] = b"CMYK"
    content = bytes(foreign) if profile == "CMYK" else b"broken" * 40
    path = tmp_path / f"a{SUFFIX[kind]}"
    path.write_bytes(with_profile(kind, content))
    with pytest.warns(MetadataWarning, match="ICC profile"):
        photo = read_photo(path)
    assert photo.metadata["icc_profile"] == content
    write_photo(path, photo)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == content


# what is kept


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description exif:PixelXDimension="12" exif:PixelYDimension="16" tiff:ImageWidth=\'12\'>'
    b"<tiff:ImageLength>16</tiff:ImageLength><dc:title>me</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
)
XMP_LARGE = (XMP.replace(b'"12"', b'"24"').replace(b'"16"', b'"32"').replace(b"'12'", b"'24'")
             .replace(b">16<", b">32<"))  # fmt: skip


def large(path: Path) -> Path:
    """The file at twice the size."""
    photo = read_photo(path)
    write_photo(path, photo.resized(photo.pixels.repeat(2, 0).repeat(2, 1)))
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_xmp_is_kept_with_the_new_size(tmp_path, kind):
    path = tmp_path / f"a{SUFFIX[kind]}"
    if kind == "TIFF":
        tifffile.imwrite(path, PIXELS, extratags=[(700, 1, len(XMP), XMP, True)], metadata=None)
    elif kind == "PNG":
        path.write_bytes(png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    else:
        path.write_bytes(saved(kind, xmp=XMP))
    with Image.open(large(path)) as image:
        assert image.info["xmp"].rstrip(b"\0") == XMP_LARGE


@pytest.mark.parametrize("deep", [False, True])
def test_texts_and_colour_chunks_of_a_png_are_kept(tmp_path, deep):
    path = tmp_path / "a.png"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "täst")
    texts.add_text("parameters", "steps: 20, sampler: DDIM" * 50, zip=True)
    texts.add_itxt("Comment", "漢字", lang="ja")
    chunks = {
        b"gAMA": struct.pack(">I", 100000), b"cHRM": struct.pack(">8I", *range(30000, 30008)), b"sRGB": b"\1",
        b"cICP": bytes([9, 16, 0, 1]), b"mDCV": bytes(24), b"cLLI": bytes(8), b"prVt": b"whatever",
    }  # fmt: skip
    if deep:
        write_photo(path, Photo(PIXELS.astype(np.uint16) * 257))
        content = path.read_bytes()
        buffer = io.BytesIO()
        Image.new("L", (1, 1)).save(buffer, "PNG", pnginfo=texts)
        other = buffer.getvalue()
        content = content[:33] + other[33 : other.index(b"IDAT") - 4] + content[33:]
    else:
        content = saved("PNG", pnginfo=texts)
    for name, data in chunks.items():
        content = png_with(name, data, content)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = large(path).read_bytes()
    for name, data in chunks.items():
        assert written.count(name + data) == 1 and written.index(name) < written.index(b"IDAT")
    with Image.open(path) as image:
        assert image.size == (24, 32)
        assert image.text["Title"] == "täst" and image.text["Comment"] == "漢字"
        assert image.text["parameters"].startswith("steps: 20") and image.info["gamma"] == 1.0


def test_metadata_that_may_not_apply_is_dropped_and_reported(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_with(b"bKGD", bytes(6), png_with(b"caBX", b"signature")))
    with pytest.warns(MetadataWarning, match="bKGD, caBX"):
        large(path)
    assert b"bKGD" not in path.read_bytes() and b"caBX" not in path.read_bytes()


def test_comments_and_iptc_of_a_jpeg_are_kept(tmp_path):
    path = tmp_path / "a.jpg"
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0a\x1c\x02\x69\0\x05Title"
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 40
    content = jpeg_with(0xED, iptc)
    for marker, data in ((0xFE, b"a comment"), (0xFE, b"another"), (0xE1, extended)):
        content = content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = large(path).read_bytes()
    for data in (iptc, b"a comment", b"another", extended):
        assert written.count(data) == 1
    with Image.open(path) as image:
        assert image.info["comment"] in (b"a comment", b"another") and 0x0404 in image.info["photoshop"]


def test_exif_is_kept_to_the_byte_but_for_the_size(tmp_path):
    """Including makers' notes, whose offsets count from its beginning."""
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif("JPEG", EXIF))
    with Image.open(large(path)) as image:
        exif, tags = image.info["exif"], image.getexif()
        details = tags.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003], details[0x927C], tags[0x0112]) == (24, 32, b"notes", 6)
    assert len(exif) == len(EXIF) and sum(a != b for a, b in zip(exif, EXIF, strict=True)) <= 8


def test_texts_and_iptc_of_a_tiff_are_kept_and_dropped_tags_reported(tmp_path):
    path = tmp_path / "a.tif"
    extra = [(33432, 2, 3, b"me\0", True), (33723, 7, 5, b"\x1c\x02\x69\0\0", True)]
    tifffile.imwrite(path, PIXELS, extratags=extra, description="what is shown", software="a camera", metadata=None,
                     resolution=(118.11, 118.11), resolutionunit="CENTIMETER")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        large(path)
    with Image.open(path) as image:
        tags = image.tag_v2
        assert (tags[270], tags[305], tags[33432]) == ("what is shown", "a camera", "me")
        assert tags[33723] == b"\x1c\x02\x69\0\0" and image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, extratags=[(50341, 7, 5, b"print", True)])
    with pytest.warns(MetadataWarning, match="its TIFF tags PrintImageMatching were dropped"):
        read_photo(path)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour_type", [0, 2])
def test_a_transparent_value_becomes_alpha_at_every_depth(tmp_path, depth, colour_type):
    if colour_type == 2 and depth < 8:
        pytest.skip("PNG has no such colour")
    channels, white = (1, 3)[colour_type == 2], 2**depth - 1
    samples = np.random.default_rng(0).integers(0, min(white, 3), (8, 8, channels), endpoint=True)
    packed = samples.astype(">u2").reshape(8, -1)
    bits = (packed[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(8, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0)
    value = samples[0, 0]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"tRNS", value.astype(">u2").tobytes()),
                       (b"IDAT", zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes())), (b"IEND", b"")):  # fmt: skip
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "a.png").write_bytes(content)
    pixels = read_photo(tmp_path / "a.png").pixels
    most = np.iinfo(pixels.dtype).max
    assert pixels.dtype == (np.uint16 if depth == 16 else np.uint8) and pixels.shape == (8, 8, channels + 1)
    np.testing.assert_array_equal(pixels[..., -1] == 0, (samples == value).all(-1))
    expected = samples if depth >= 8 else samples * (most // white)
    np.testing.assert_array_equal(pixels[..., :-1], expected)


def test_lab_becomes_srgb_without_its_profile(tmp_path):
    lab = ImageCms.profileToProfile(
        Image.fromarray(PIXELS), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab.save(tmp_path / "a.tif", icc_profile=profile)
    photo = read_photo(tmp_path / "a.tif")
    assert "icc_profile" not in photo.metadata
    assert np.abs(photo.pixels.astype(int) - PIXELS).mean() < 4  # 8 bits of Lab are coarse


def test_exif_says_srgb_for_converted_cmyk(tmp_path):
    exif = with_values(EXIF, {0xA001: 65535})
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "a.jpg", exif=exif)
    with Image.open(large(tmp_path / "a.jpg")) as image:
        assert image.mode == "RGB" and image.getexif().get_ifd(0x8769)[0xA001] == 1


@pytest.mark.parametrize("target", [".webp", ".bmp", ".jpg", ".tif", ".png"])
def test_metadata_that_another_format_cannot_store_is_reported(tmp_path, target):
    own = {"PNG": [(b"gAMA", bytes(4))]}
    photo = Photo(PIXELS, {"exif": EXIF, "dpi": (72.0, 72.0)} | (own if target != ".png" else {"JPEG": [(0xFE, b"x")]}))
    with pytest.warns(MetadataWarning, match="cannot be stored in"):
        write_photo(tmp_path / f"a{target}", photo)


@pytest.mark.parametrize("decoder", ["OpenCV", "imagecodecs"])
def test_12_bits_fill_the_range_of_16(tmp_path, monkeypatch, decoder):
    """Otherwise a result of 16 bits would be dark. OpenCV shifts samples to the left; imagecodecs, with which tifffile
    decodes them itself, does not."""
    samples = np.arange(16).reshape(4, 4) * 273  # 0..4095
    packed = np.packbits(((samples[..., None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8).reshape(4, -1), axis=1)
    data = packed.tobytes()
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    (tmp_path / "a.tif").write_bytes(header + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    if decoder == "imagecodecs":
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda page: samples.astype(np.uint16))
    expected = np.rint(samples * (65535 / 4095))
    np.testing.assert_allclose(read_photo(tmp_path / "a.tif").pixels, expected, atol=1)


def test_white_is_zero_becomes_black_is_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 65535 - PIXELS[..., 0].astype(np.uint16), photometric="miniswhite")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, PIXELS[..., 0])


def test_gray_and_alpha_that_opencv_would_decode_without_alpha_are_refused(tmp_path, monkeypatch):
    """Without imagecodecs tifffile reads no LZW. The file is not compressed, because tifffile could not write it."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[..., :2], photometric="minisblack", planarconfig="contig",
                     extrasamples=["unassalpha"])  # fmt: skip

    def needs_imagecodecs(page: tifffile.TiffPage) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", needs_imagecodecs)
    with pytest.raises(InputError, match="deflate or no compression for 2 channels of 8 bits"):
        tiff.decode(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_does_not_apply_to_alpha(tmp_path, dtype):
    pixels = PIXELS[..., :2].astype(dtype)
    inverted = np.stack([np.iinfo(dtype).max - pixels[..., 0], pixels[..., 1]], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", inverted, photometric="miniswhite", planarconfig="contig",
                     extrasamples=["unassalpha"])  # fmt: skip
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, pixels)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_with_unsupported_colours_is_reported(tmp_path):
    content = saved("AVIF")
    place = content.index(b"colrnclx") + 8
    (tmp_path / "a.avif").write_bytes(content[:place] + b"\0\x09\0\x10" + content[place + 4 :])
    with pytest.warns(MetadataWarning, match="primaries 9, transfer 16"):
        read_photo(tmp_path / "a.avif")


# EXIF itself


@pytest.mark.parametrize("header", [b"II*\0", b"MM\0*", b"II\0*", b"MM*\0"])
def test_exif_is_edited_in_place(header):
    tags = Image.Exif()
    tags.endian = {b"II": "<", b"MM": ">"}[header[:2]]
    tags[0x0112] = 3
    tags.get_ifd(0x8769).update({0xA002: 7, 0xA003: 70000})
    exif = tags.tobytes()
    assert exif[6:8] == header[:2]
    exif = exif[:6] + header + exif[10:]
    assert orientation_of(exif) == 3
    changed = Image.Exif()
    changed.load(resized({"exif": exif}, 100000, 50)["exif"])
    assert dict(changed.get_ifd(0x8769)) == {0xA002: 50, 0xA003: 100000} and changed[0x0112] == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_makes_a_round_trip(orientation):
    tags = Image.Exif()
    tags.load(orientation_exif(orientation))
    assert tags[0x0112] == orientation_of(orientation_exif(orientation)) == orientation


@pytest.mark.parametrize("exif", [b"", b"II", b"XX*\0", b"II*\0\xff\xff\xff\xff", EXIF[:30]])
def test_broken_exif_is_upright(exif):
    assert orientation_of(exif) in (1, 6)


DOTS = {  # an image's resolution as its format states it, in dots per inch
    "PNG": lambda dots: png_with(b"pHYs", struct.pack(">IIB", *[min(round(dots / 0.0254), 2**32 - 1)] * 2, 1)),
    "TIFF": lambda dots: tiff_with(resolution=((round(dots), 1),) * 2 if dots >= 1 else ((1, round(1 / dots)),) * 2,
                                   resolutionunit="INCH"),
}  # fmt: skip


def tiff_with(**options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", DOTS)
@pytest.mark.parametrize("suffix", SUFFIX.values())
@pytest.mark.parametrize("dots", [1 / (2**32 - 1), 0.01, 0.0508, 72, 65535, 70000, 10**7, 2**31, 2**32 - 1])
def test_a_resolution_never_stops_an_image(tmp_path, kind, suffix, dots):
    """Where a format cannot store it, it is dropped, and that is said."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(DOTS[kind](dots))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        large(path)
    is_said = any("resolution" in str(warning.message) or "dpi" in str(warning.message) for warning in caught)
    with Image.open(path) as image:
        assert image.size == (24, 32)
        is_kept = bool(image.info.get("dpi")) and image.info["dpi"][0] == pytest.approx(dots, rel=0.03)
    assert is_kept or is_said or round(dots / 0.0254) == 0


def test_what_follows_a_png_is_no_part_of_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved("PNG") + b"whatever a server appends to files" * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_photo(path).pixels, PIXELS)


@pytest.mark.parametrize("extra", [["unspecified"], ["unassalpha", "unspecified"], ["unspecified", "unspecified"]])
def test_further_channels_of_a_tiff_are_said(tmp_path, extra):
    pixels = np.dstack([PIXELS, *[PIXELS[..., :1]] * len(extra)])
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=extra, metadata=None)
    with pytest.warns(MetadataWarning, match="channels? in addition to colours"):
        photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, pixels[..., : photo.pixels.shape[2]])


@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_libraries_do_not_talk_of_broken_tags(tmp_path, caplog, orientation, dtype):
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", PIXELS.astype(dtype), photometric="rgb", extratags=tags, metadata=None)
    caplog.clear()
    large(tmp_path / "a.tif")
    assert not caplog.records


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_that_claims_to_be_larger_than_memory_is_refused(tmp_path, dtype):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS.astype(dtype), photometric="rgb", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[tag].offset for tag in (256, 257)]
    for place in places:
        struct.pack_into("<HII", content, place + 2, 4, 1, 10**6)
    path.write_bytes(content)
    for read in (photo_size, read_photo):
        with pytest.raises(InputError, match=r"an image that fits into memory, got .*a\.tif"):
            read(path)


def test_large_images_are_read_without_a_warning(tmp_path):
    Image.new("1", (12000, 9000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert photo_size(tmp_path / "a.png") == (9000, 12000)


def test_an_image_beyond_memory_is_named_for_what_it_is(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + bytes(4) + b"IDAT")
    with pytest.raises(InputError, match=r"expected an image that fits into memory, got .*3600000000 pixels"):
        read_photo(path)

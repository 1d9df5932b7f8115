"""Picture files with all that is in them: 8 or 16 bits, gray, alpha, EXIF (with the orientation), ICC profile."""

import io
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

# Suffix -> Pillow's format and how it is written: as good as it gets where a format loses something.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95, "method": 4}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
READABLE = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP")  # MPO: a JPEG with previews behind it, as phones write
KINDS = "PNG, JPEG, WebP, TIFF or BMP"
WITHOUT_ALPHA = ("JPEG", "BMP")
METADATA = {"PNG": ("icc_profile", "exif", "dpi"), "JPEG": ("icc_profile", "exif", "dpi"),
            "WEBP": ("icc_profile", "exif"), "TIFF": ("icc_profile", "exif", "dpi"), "BMP": ("dpi",)}  # fmt: skip
# PNG's colour types by number of channels, and its filter: each byte as its difference from the one above.
COLOUR_TYPES, GRAY_ALPHA, UP = {(): 0, (2,): 4, (3,): 2, (4,): 6}, 4, 2
ORIENTATION, BITS_PER_SAMPLE, EXIF_WIDTH, EXIF_HEIGHT, EXIF_IFD = 0x0112, 0x0102, 0xA002, 0xA003, 0x8769


@dataclass(frozen=True)
class Photo:
    """A picture in memory.

    Attributes:
        pixels: uint8 or uint16, (H, W) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB, (H, W, 4) RGB and alpha. As
            stored: an orientation in `metadata` is not yet applied.
        metadata: any of ``icc_profile`` (bytes), ``exif`` (bytes), ``dpi`` (two numbers), as Pillow has them.
    """

    pixels: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def enlarged(self, pixels: np.ndarray) -> "Photo":
        """The same photo with more pixels."""
        metadata = dict(self.metadata)
        if "exif" in metadata:
            exif = Image.Exif()
            exif.load(metadata["exif"])
            details = exif.get_ifd(EXIF_IFD)
            for tag, side in ((EXIF_WIDTH, pixels.shape[1]), (EXIF_HEIGHT, pixels.shape[0])):
                if tag in details:
                    details[tag] = side
            metadata["exif"] = exif.tobytes()
        return replace(self, pixels=pixels, metadata=metadata)


def _open(path: Path) -> Image.Image:
    """The opened picture: header read, pixels not.

    Raises:
        InputError: no picture, one of another format, or more than one in the file.
    """
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"expected a picture at {path}, found no such file") from error
    except Exception as error:  # whatever a decoder may raise on bytes that somebody else wrote
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
        raise InputError(f"expected a {KINDS} picture, got {path}, which is none{reason}") from error
    if image.format not in READABLE:
        raise InputError(f"expected a {KINDS} picture, got {path}, a {image.format}; convert it")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InputError(f"expected a still picture, got {path}, which holds {image.n_frames}; split it")
    return image


def photo_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture in pixels, from its header.

    Raises:
        InputError: it cannot be read, see `read_photo`.
    """
    with _open(path) as image:
        _depth(path, image)
        return image.height, image.width


def read_photo(path: Path) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF or BMP; what it is, its bytes say, not its name.

    Palettes and CMYK become RGB.

    Raises:
        InputError: no such file, not one still picture of these formats, damaged, or of more than 16 bits.
    """
    with _open(path) as image:
        try:
            return _read_deep(path, image) if _depth(path, image) == 16 else from_pillow(image)
        except InputError:
            raise
        except Exception as error:  # whatever a decoder may raise on damaged bytes
            raise InputError(f"expected a whole picture, got {path}, which is damaged ({error})") from error


def _depth(path: Path, image: Image.Image) -> int:
    """Bits of a sample, 8 (or less) or 16. Pillow itself reduces 16-bit colour to 8 bits and does not say so."""
    bits = 8
    if image.format == "PNG":
        with open(path, "rb") as file:
            bits = file.read(25)[24]
    elif image.format == "TIFF":
        bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if bits > 16 or image.mode == "F":
        raise InputError(f"expected 8 or 16 bits a sample, got {path} with {bits}; convert it")
    return 16 if bits > 8 else 8


def _read_deep(path: Path, image: Image.Image) -> Photo:
    """16 bits: of PNG by OpenCV, of TIFF by tifffile, or by OpenCV where its compression needs a codec of its own."""
    metadata = _metadata(image)
    if image.format == "TIFF":
        try:
            return Photo(_tiff_pixels(path), metadata)
        except ValueError as error:
            if "imagecodecs" not in str(error) or "exif" in metadata:  # OpenCV cannot leave an orientation alone
                raise
    content = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise InputError(f"expected a whole picture of 16 bits, got {path}, which cannot be decoded")
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
        if image.format == "PNG" and content[25] == GRAY_ALPHA:  # which OpenCV knows as colour only
            pixels = pixels[..., [0, 3]]
    return Photo(np.ascontiguousarray(pixels), metadata)


def _tiff_pixels(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        pixels = page.asarray()
        if page.axes.startswith("S"):  # one plane after the other
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric.name not in ("RGB", "MINISBLACK") or pixels.shape[2:] > (4,):
            raise InputError(f"expected gray or RGB of 16 bits, got {path}, a {page.photometric.name}; convert it")
        return pixels


def _metadata(image: Image.Image) -> dict[str, Any]:
    metadata = {name: image.info[name] for name in ("icc_profile", "dpi") if image.info.get(name)}
    exif = image.getexif()
    if exif and image.format != "TIFF":
        metadata["exif"] = exif.tobytes()
    elif ORIENTATION in exif:  # a TIFF's other tags tell how its pixels are laid out
        kept = Image.Exif()
        kept[ORIENTATION] = exif[ORIENTATION]
        metadata["exif"] = kept.tobytes()
    return metadata


def from_pillow(image: Image.Image) -> Photo:
    """A picture of Pillow's, with its metadata.

    Raises:
        InputError: a mode of more than 16 bits, or one that is no picture's.
    """
    image.load()  # Pillow turns TIFFs upright here, and then has no orientation any more
    metadata = _metadata(image)
    if image.mode == "CMYK" and "icc_profile" in metadata:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(metadata.pop("icc_profile")))
        image = ImageCms.profileToProfile(image, inks, ImageCms.createProfile("sRGB"), outputMode="RGB")
    has_alpha = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return Photo(np.asarray(image).astype(np.uint16), metadata)
    if image.mode in ("I", "F"):
        raise InputError(f"expected a picture of 8 or 16 bits a sample, got Pillow's mode {image.mode}; convert it")
    is_gray = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if has_alpha else "L") if is_gray else ("RGBA" if has_alpha else "RGB")
    return Photo(np.asarray(image.convert(mode)), metadata)


def to_pillow(photo: Photo) -> Image.Image:
    """A picture of Pillow's, its metadata in ``info``.

    Raises:
        InputError: 16-bit colour, which Pillow does not have.
    """
    if photo.pixels.dtype == np.uint16 and photo.pixels.ndim == 3:
        raise InputError("expected 8 bits or gray for a Pillow picture, got 16-bit colour; use arrays")
    image = Image.fromarray(photo.pixels)
    image.info.update(photo.metadata)
    return image


def check_writable(path: Path, photo: Photo) -> None:
    """Raise InputError where the format of this name cannot hold the picture."""
    kind, _ = FORMATS[path.suffix.lower()]
    if photo.pixels.dtype == np.uint16 and kind not in ("PNG", "TIFF"):
        raise InputError(f"expected a PNG or TIFF for 16 bits, got {path.name}; rename it by what it is")
    if photo.pixels.shape[2:] in ((2,), (4,)) and kind in WITHOUT_ALPHA:
        raise InputError(f"expected a format with transparency, got {path.name}; rename it by what it is")


def write_photo(path: Path, photo: Photo) -> None:
    """Write in the format that the name's suffix says; at any time the old file or all of the new one is there.

    Raises:
        InputError: the format cannot hold the picture, or the file cannot be written.
    """
    check_writable(path, photo)
    kind, options = FORMATS[path.suffix.lower()]
    metadata = {name: photo.metadata[name] for name in METADATA[kind] if name in photo.metadata}
    if kind == "TIFF":
        content = _tiff(photo.pixels, metadata)
    elif photo.pixels.dtype == np.uint16:
        content = _png16(photo.pixels, metadata)
    else:
        buffer = io.BytesIO()
        Image.fromarray(photo.pixels).save(buffer, kind, **options, **metadata)
        content = buffer.getvalue()
    try:
        write_bytes(path, content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _png16(pixels: np.ndarray, metadata: dict[str, Any]) -> bytes:
    """A 16-bit PNG (ISO/IEC 15948): Pillow cannot write colour of 16 bits, and OpenCV no metadata."""
    height, width = pixels.shape[:2]
    samples = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    differences = np.diff(samples, axis=0, prepend=np.zeros_like(samples[:1]))
    rows = np.insert(differences, 0, UP, axis=1)
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[pixels.shape[2:]], 0, 0, 0))]
    if "icc_profile" in metadata:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata["icc_profile"])))
    if "dpi" in metadata:
        dots_a_metre = (round(dots / 0.0254) for dots in metadata["dpi"])
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *dots_a_metre, 1)))
    if "exif" in metadata:
        chunks.append(_chunk(b"eXIf", metadata["exif"].removeprefix(b"Exif\0\0")))
    chunks += [_chunk(b"IDAT", zlib.compress(rows.tobytes())), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _tiff(pixels: np.ndarray, metadata: dict[str, Any]) -> bytes:
    """A TIFF of 8 or 16 bits with its profile, resolution and orientation."""
    import tifffile

    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    is_colour, has_alpha = pixels.shape[2:] in ((3,), (4,)), pixels.shape[2:] in ((2,), (4,))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        photometric="rgb" if is_colour else "minisblack",
        planarconfig="contig" if pixels.ndim == 3 else None,
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=metadata.get("icc_profile"),
        resolution=metadata.get("dpi", (1, 1)),
        resolutionunit="INCH" if "dpi" in metadata else "NONE",
        extratags=[(ORIENTATION, "H", 1, exif[ORIENTATION], True)] if ORIENTATION in exif else [],
        metadata=None,
    )
    return buffer.getvalue()

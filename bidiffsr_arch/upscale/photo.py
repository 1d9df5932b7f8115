"""Read and write image files as pixels and metadata: 8 or 16 bits, gray or colour, with or without alpha."""

import io
import mmap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bidiffsr_arch.errors import InputError, first_line
from bidiffsr_arch.files import write_bytes
from bidiffsr_arch.upscale import avif, bmp, jpeg, pillow, png, tiff
from bidiffsr_arch.upscale.formats import FORMATS, KINDS, READABLE, check_size, format_of
from bidiffsr_arch.upscale.metadata import check_profile, resized, warn

METADATA = {name for form in FORMATS.values() for name in form.metadata}


@dataclass(frozen=True)
class Photo:
    """An image in memory.

    Attributes:
        pixels: uint8 or uint16, (H, W) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB, (H, W, 4) RGB and alpha, as
            stored: an orientation in `metadata` is not yet applied.
        metadata: any of ``icc_profile``, ``exif``, ``xmp`` (bytes), ``dpi`` (two numbers), and under ``PNG``,
            ``JPEG`` or ``TIFF`` what is specific to that format.
    """

    pixels: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def resized(self, pixels: np.ndarray) -> "Photo":
        """The photo with new pixels, and metadata for their size."""
        return replace(self, pixels=pixels, metadata=resized(self.metadata, *pixels.shape[:2]))


class _Opened(NamedTuple):
    """An opened file: Pillow's image, the file without metadata, and its metadata."""

    image: Image.Image
    bare: bytes = b""
    blocks: list = []  # noqa: RUF012 (never changed)


def _open(path: Path, whole: bool = True) -> _Opened:
    """Open an image; PNG and JPEG are decoded without their metadata, which could make decoders fail.

    Raises:
        InputError: the file is not an image, has another format, or contains several images.
    """
    try:
        opened = _open_bare(path, whole)
    except FileNotFoundError as error:
        raise InputError(f"expected an image at {path}, found no such file") from error
    except Image.DecompressionBombError as error:
        reason = first_line(error)
        raise InputError(f"expected an image that fits into memory, got {path} ({reason}); cut it") from error
    except Exception as error:  # decoders may raise anything on malformed bytes
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({first_line(error)})"
        raise InputError(f"expected a {KINDS} image, got {path}, which is not one{reason}") from error
    image = opened.image
    if image.format not in READABLE:
        raise InputError(f"expected a {KINDS} image, got {path}, a {image.format}; convert it")
    count = png.frames(opened.blocks) if image.format == "PNG" else getattr(image, "n_frames", 1)
    if count > 1:
        raise InputError(f"expected a still image, got {path}, which has {count}; split it")
    return opened


def _open_bare(path: Path, whole: bool) -> _Opened:
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise ValueError("an empty file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for container in (png, jpeg):
                if data[: len(container.SIGNATURE)] == container.SIGNATURE:
                    bare, blocks = container.split(data, whole)
                    return _Opened(Image.open(io.BytesIO(bare)), bare, blocks)
            content = data[:] if data[4:8] == b"ftyp" else b""
    try:
        return _Opened(Image.open(io.BytesIO(content) if content else path))
    except Exception:
        if b"Exif" not in content:
            raise
    # Pillow parses EXIF when it opens an AVIF. The decoder skips it under another name.
    image = Image.open(io.BytesIO(content.replace(b"Exif", b"none", 1)))
    warn("its EXIF cannot be read and was dropped")
    return _Opened(image)


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@contextmanager
def _large_images() -> Iterator[None]:
    """Suppress Pillow's warning about large images; far larger ones raise an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@_large_images()
def photo_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header.

    Raises:
        InputError: it cannot be read, see `read_photo`.
    """
    try:
        with _open(path, whole=False).image as image:
            if image.format == "TIFF":
                tiff.is_deep(image, path)
            return image.height, image.width
    except InputError as error:
        if not path.is_file() or not _is_tiff(path):
            raise
        return _whole(path, lambda: tiff.size(path), error)


@_large_images()
def read_photo(path: Path) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF, BMP or AVIF; the format is recognised by the content, not by the name.

    Palettes become RGB; CMYK and Lab become sRGB. A `MetadataWarning` names metadata that cannot be kept.

    Raises:
        InputError: there is no such file, or it is damaged, is not a single still image in one of these formats, or has
            more than 16 bits per sample.
    """
    try:
        opened = _open(path)
    except InputError as error:
        if not path.is_file() or not _is_tiff(path):
            raise
        photo = _whole(path, lambda: Photo(tiff.decode(path), tiff.metadata_of(path, upright=False)), error)
    else:
        with opened.image as image:
            reader = READERS.get(image.format or "", _read_other)
            photo = _whole(path, lambda: reader(path, opened))
    check_profile(photo.metadata, photo.pixels)
    return photo


def _whole(path: Path, read: Callable[[], Any], otherwise: InputError | None = None) -> Any:
    """The result of `read`.

    Raises:
        InputError: `read` failed; the error is its own InputError, `otherwise`, or one that says that the file is
            damaged.
    """
    try:
        return read()
    except InputError as error:
        raise (error if str(path) in str(error) else InputError(f"{path}: {error}")) from error
    except Exception as error:  # decoders may raise anything on malformed bytes
        damaged = InputError(f"expected a complete image, got {path}, which is damaged ({first_line(error)})")
        raise (otherwise or damaged) from error


def _read_png(path: Path, opened: _Opened) -> Photo:
    return Photo(png.decode(opened.bare, opened.blocks), png.metadata_of(opened.blocks))


def _read_jpeg(path: Path, opened: _Opened) -> Photo:
    opened.image.load()
    metadata = pillow.metadata_of(opened.image) | jpeg.metadata_of(opened.blocks)
    return Photo(pillow.pixels_of(opened.image, metadata), metadata)


def _read_tiff(path: Path, opened: _Opened) -> Photo:
    """Read with tifffile if the image has 16 bits or Pillow fails on its tags, else with Pillow."""
    if not tiff.is_deep(opened.image, path):
        with suppress(Exception):  # if tifffile fails as well, its error is reported
            opened.image.load()  # Pillow applies an orientation here
            metadata = tiff.metadata_of(path, upright=True)
            pixels = pillow.pixels_of(opened.image, metadata)
            tiff.warn_about_channels(opened.image, pixels)
            return Photo(pixels, metadata)
    return Photo(tiff.decode(path), tiff.metadata_of(path, upright=False))


def _read_other(path: Path, opened: _Opened) -> Photo:
    image = opened.image
    image.load()
    metadata = pillow.metadata_of(image)
    if image.format == "AVIF":
        avif.warn_about(path)
    return Photo(pillow.pixels_of(image, metadata), metadata)


# Pillow alone reads and encodes the other formats.
READERS: dict[str, Callable[[Path, _Opened], Photo]] = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff}
ENCODERS: dict[str, Callable[..., bytes]] = {
    "PNG": png.encode, "JPEG": jpeg.encode, "TIFF": tiff.encode, "BMP": bmp.encode,
}  # fmt: skip


def from_pillow(image: Image.Image) -> Photo:
    """A photo from an image of Pillow and its `info`.

    Raises:
        InputError: its mode has more than 16 bits, or floats.
    """
    image.load()  # Pillow rotates TIFFs upright here and drops their orientation
    metadata = pillow.info_of(image)
    return Photo(pillow.pixels_of(image, metadata), metadata)


def to_pillow(photo: Photo) -> Image.Image:
    """An image of Pillow from a photo, with its metadata in ``info``.

    Raises:
        InputError: it has 16-bit colour, which Pillow does not support.
    """
    if photo.pixels.dtype == np.uint16 and photo.pixels.ndim == 3:
        raise InputError("expected 8 bits or gray for a Pillow image, got 16-bit colour; use a NumPy array")
    image = Image.fromarray(photo.pixels)
    image.info.update(photo.metadata)
    return image


def check_writable(path: Path, photo: Photo) -> None:
    """Raise InputError if the format of this file name cannot store the photo."""
    form = format_of(path)
    if photo.pixels.dtype == np.uint16 and not form.has_16_bits:
        raise InputError(f"expected a PNG or TIFF for 16 bits, got {path.name}; choose another suffix")
    if photo.pixels.shape[2:] in ((2,), (4,)) and not form.has_alpha:
        raise InputError(f"expected a format with transparency, got {path.name}; choose another suffix")


def write_photo(path: Path, photo: Photo) -> None:
    """Write a photo atomically, in the format that the file name's suffix stands for.

    A `MetadataWarning` names metadata that the format cannot store.

    Raises:
        InputError: the format cannot store the photo, or the file cannot be written.
    """
    check_writable(path, photo)
    check_size(path, *photo.pixels.shape[:2])
    form = format_of(path)
    if lost := sorted(METADATA.intersection(photo.metadata) - set(form.metadata)):
        warn(f"its {', '.join(lost)} metadata cannot be stored in {form.name} and was dropped")
    metadata = {name: photo.metadata[name] for name in form.metadata if name in photo.metadata}
    encode = ENCODERS.get(form.name) or partial(pillow.encode, name=form.name)
    try:
        write_bytes(path, encode(photo.pixels, metadata, **form.options))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:  # encoders may raise anything
        raise InputError(f"cannot write {path}: {first_line(error)}") from error

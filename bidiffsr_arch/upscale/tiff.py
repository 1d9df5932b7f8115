"""TIFF (revision 6.0): read with Pillow, or with tifffile or OpenCV if Pillow cannot, as for 16-bit colour."""

import io
import logging
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale.alpha import unpremultiplied
from bidiffsr_arch.upscale.exif import DIRECTORIES, block_of, order_of, with_tags
from bidiffsr_arch.upscale.ifd import ORIENTATION, BrokenDirectory
from bidiffsr_arch.upscale.metadata import XMP_ORIENTATION, orientation_exif, orientation_of, resolution, warn

PROFILE, XMP = 34675, 700
# Tags about the content, not about how pixels are stored: texts (document name, description, maker, model, page,
# software, date, artist, computer, copyright) and bytes (IPTC, Photoshop's blocks).
TEXTS, BYTES = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432), (33723, 34377)
# Tags about how pixels are stored, including resolution and page numbers: results have their own.
STORAGE = {*range(254, 267), *range(273, 285), 290, 291, 292, 293, 296, 297, *range(317, 348), *range(512, 533), 559}
ASCII, BYTE, UNDEFINED = 2, 1, 7  # types of values
UNSIGNED, ASSOCIATED = (1, 4), 1  # sample formats; extra samples
MOST_BYTES = 2**32 - 2**25  # of pixels in a classic TIFF, however well they are compressed
KINDS = ("MINISBLACK", "MINISWHITE", "RGB")


def check(path: Path, bits: int, sample_format: int) -> None:
    """Raise InputError unless samples are unsigned integers of at most 16 bits."""
    if bits > 16 or sample_format not in UNSIGNED:
        kind = {2: "signed", 3: "float"}.get(sample_format, "unsigned")
        raise InputError(f"expected unsigned samples of 8 or 16 bits, got {path} with {bits} bits, {kind}; convert it")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file opened by tifffile, whose log is disabled: it has a message for every broken tag, which is ignored."""
    import tifffile

    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    finally:
        logger.disabled = was_disabled


def size(path: Path) -> tuple[int, int]:
    """Height and width from the header, for files that Pillow cannot read.

    Raises:
        Exception: the file cannot be read; an InputError, or any error of a decoder.
    """
    with _opened(path) as file:
        page = _page(path, file)
        return page.imagelength, page.imagewidth


def decode(path: Path) -> np.ndarray:
    """Pixels of 8 or 16 bits, as stored.

    Raises:
        Exception: the file is damaged, or of a kind that only Pillow reads; an InputError, or any error of a decoder.
    """
    with _opened(path) as file:
        page = _page(path, file)
        pixels, white = _decoded(path, page)
        bits, channels, extra = page.bitspersample, pixels.shape[2:], page.extrasamples
    if channels > (4,):
        raise InputError(f"expected at most 4 channels, got {path} with {channels[0]}; convert it")
    if 8 < bits < 16:
        pixels = np.rint(pixels * (65535 / white)).astype(np.uint16)
    if page.photometric.name == "MINISWHITE":
        gray = pixels[..., 0] if channels else pixels  # alpha is not inverted
        gray[...] = np.iinfo(pixels.dtype).max - gray
    return unpremultiplied(pixels) if channels in ((2,), (4,)) and ASSOCIATED in extra else pixels


def _decoded(path: Path, page: Any) -> tuple[np.ndarray, int]:
    """Pixels of tifffile, or of OpenCV if tifffile lacks a package for them; and the value of white in 9 to 16 bits."""
    white = 2**page.bitspersample - 1
    try:
        pixels = page.asarray()
    except (ValueError, NotImplementedError) as error:
        if "imagecodecs" not in str(error):
            raise
        return _decode_by_opencv(path, page), white << max(16 - page.bitspersample, 0)  # OpenCV shifts to the left
    return np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels, white  # S first: separate planes


def _page(path: Path, file: Any) -> Any:
    page = file.pages[0]
    if len(file.pages) > 1:
        raise InputError(f"expected a still image, got {path}, which has {len(file.pages)}; split it")
    check(path, page.bitspersample, page.sampleformat)
    _check_memory(path, page.imagewidth, page.imagelength)
    if page.photometric.name not in KINDS:
        raise InputError(f"expected gray or RGB, got {path}, a {page.photometric.name}; convert it")
    return page


def _check_memory(path: Path, width: int, height: int) -> None:
    """Raise InputError if the network's input, in float32, is larger than this machine's memory.

    tifffile fills missing data with zeros, so a small damaged file can claim any size.
    """
    if hasattr(os, "sysconf") and 12 * width * height > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise InputError(f"expected an image that fits into memory, got {path} of {width}x{height} pixels; cut it")


def _decode_by_opencv(path: Path, page: Any) -> np.ndarray:
    if page.tags.get(ORIENTATION) and page.tags[ORIENTATION].value != 1:
        raise InputError(f"expected deflate or no compression for a rotated image, got {path}; convert it")
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"expected a complete image, got {path}, which cannot be decoded")
    channels, bits = page.samplesperpixel, page.bitspersample
    if (pixels.shape[2:] or (1,)) != (channels,) or 8 * pixels.itemsize < bits:  # of gray and alpha it reads 8-bit gray
        raise InputError(
            f"expected deflate or no compression for {channels} channels of {bits} bits, got {path}; convert it"
        )
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def warn_about_channels(image: Image.Image, pixels: np.ndarray) -> None:
    """Warn if an opened TIFF has more channels than the pixels that Pillow read, such as masks of Photoshop."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    more = image.tag_v2.get(277, 1) - channels
    if image.tag_v2.get(262) in (0, 1, 2) and more > 0:
        warn(f"{more} {'channel' if more == 1 else 'channels'} in addition to colours and transparency were dropped")


def metadata_of(path: Path, upright: bool) -> dict[str, Any]:
    """Metadata in the form of `Photo`. The key ``TIFF`` has the tags that only TIFF has: (number, type, count, value).

    Args:
        upright: whether the orientation has been applied to the pixels.
    """
    metadata: dict[str, Any] = {}
    try:
        with _opened(path) as file:
            page = file.pages[0]
            tags = {tag.code: tag.value for tag in page.tags}
            names = {tag.code: tag.name for tag in page.tags}
            dots = resolution(page.get_resolution("INCH")) if tags.get(296, 2) != 1 and 282 in tags else None
    except Exception:  # tags of wrong types may raise anything
        warn("its tags cannot be read and were dropped")
        return metadata
    if dots:
        metadata["dpi"] = dots
    for name, tag in (("icc_profile", PROFILE), ("xmp", XMP)):
        if isinstance(value := tags.get(tag), bytes) and value:
            metadata[name] = value
        elif value:
            warn(f"its {name} has a wrong type and was dropped")
    if upright and "xmp" in metadata:
        metadata["xmp"] = XMP_ORIENTATION.sub(rb"\g<1>1", metadata["xmp"])
    if exif := _exif_of(path, tags, upright):
        metadata["exif"] = exif
    texts = {tag: f"{tags[tag]}\0".encode() for tag in TEXTS if isinstance(tags.get(tag), str)}
    own = [(tag, ASCII, len(text), text, True) for tag, text in texts.items()]
    own += [(tag, UNDEFINED, len(tags[tag]), tags[tag], True) for tag in BYTES if isinstance(tags.get(tag), bytes)]
    lost = set(tags) - STORAGE - {PROFILE, XMP} - DIRECTORIES.keys() - {tag for tag, *_ in own}
    if lost:
        warn(f"its TIFF tags {', '.join(names[tag] for tag in sorted(lost))} were dropped")
    return metadata | ({"TIFF": own} if own else {})


def _exif_of(path: Path, tags: Mapping[int, Any], upright: bool) -> bytes:
    """An EXIF block with the directories of EXIF and GPS, and the orientation if it must still be applied; empty if
    there are none."""
    turned = tags.get(ORIENTATION, 1) in range(2, 9) and not upright
    wanted = {*DIRECTORIES, ORIENTATION} if turned else {*DIRECTORIES}
    if wanted.isdisjoint(tags):
        return b""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return block_of(data, wanted)
    except BrokenDirectory:
        if not DIRECTORIES.keys().isdisjoint(tags):
            warn("its EXIF cannot be read and was dropped")
        return orientation_exif(int(tags[ORIENTATION])) if turned else b""


def encode(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """Encode a TIFF with 8 or 16 bits, losslessly compressed."""
    import tifffile

    is_colour, has_alpha = pixels.shape[2:] in ((3,), (4,)), pixels.shape[2:] in ((2,), (4,))
    tags, exif = list(metadata.get("TIFF", ())), metadata.get("exif", b"")
    if (orientation := orientation_of(exif)) != 1:
        tags.append((ORIENTATION, "H", 1, orientation, True))
    if "xmp" in metadata:
        tags.append((XMP, BYTE, len(metadata["xmp"]), metadata["xmp"], True))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        bigtiff=pixels.nbytes > MOST_BYTES,
        byteorder=order_of(exif),
        photometric="rgb" if is_colour else "minisblack",
        planarconfig="contig" if pixels.ndim == 3 else None,
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=metadata.get("icc_profile"),
        resolution=metadata.get("dpi", (1, 1)),
        resolutionunit="INCH" if "dpi" in metadata else "NONE",
        software=False,
        extratags=tags,
        metadata=None,
    )
    try:
        return with_tags(buffer.getvalue(), exif, (*DIRECTORIES, *TEXTS)) if exif else buffer.getvalue()
    except BrokenDirectory:
        warn("its EXIF cannot be stored and was dropped")
        return buffer.getvalue()


def is_deep(image: Image.Image, path: Path) -> bool:
    """Whether an opened TIFF has samples of more than 8 bits.

    Raises:
        InputError: of more than 16 bits, or signed or float ones.
    """
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    bits = max(image.tag_v2.get(258, (1,)))
    check(path, bits, next(iter(image.tag_v2.get(339, (1,)))))
    return bits > 8

"""Image metadata: kept unchanged if it applies to the result, updated if it states sizes or colours, else dropped.

Nothing here raises: unreadable metadata is kept or dropped with a warning, so that the pixels are never lost.
"""

import io
import math
import re
import struct
import warnings
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

from bidiffsr_arch.upscale import ifd
from bidiffsr_arch.upscale.ifd import ORIENTATION, BrokenDirectory

WIDTHS, HEIGHTS, COLOUR_SPACE = (0x0100, 0xA002), (0x0101, 0xA003), 0xA001  # EXIF's tags
SRGB = 1  # EXIF's ColorSpace
METRE = 0.0254  # metres per inch
LEAST_DOTS, MOST_DOTS = METRE, (2**31 - 1) * METRE  # per inch: one and 2^31 - 1 per metre, the limits of PNG and BMP
# Channels of an image -> colour space of its profile (ICC.1:2022, table 19).
PROFILE_SPACES = {(): "GRAY", (2,): "GRAY", (3,): "RGB", (4,): "RGB"}
XMP_WIDTH = re.compile(rb"((?:tiff:ImageWidth|exif:PixelXDimension)(?:\s*=\s*[\"']|>)\s*)\d+")
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)\d+")
XMP_HEIGHT = re.compile(rb"((?:tiff:ImageLength|exif:PixelYDimension)(?:\s*=\s*[\"']|>)\s*)\d+")


class MetadataWarning(UserWarning):
    """Part of an image's metadata could not be kept."""


def warn(message: str) -> None:
    """Warn that metadata was dropped or could not be read."""
    warnings.warn(message, MetadataWarning, stacklevel=3)


def resized(metadata: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Metadata for the image resized to height x width pixels."""
    changed = dict(metadata)
    if "exif" in metadata:
        sizes = dict.fromkeys(WIDTHS, width) | dict.fromkeys(HEIGHTS, height)
        changed["exif"] = with_values(metadata["exif"], sizes)
    if "xmp" in metadata:
        xmp = XMP_WIDTH.sub(rb"\g<1>%d" % width, metadata["xmp"])
        changed["xmp"] = XMP_HEIGHT.sub(rb"\g<1>%d" % height, xmp)
    return changed


def with_values(exif: bytes, values: dict[int, int]) -> bytes:
    """EXIF with new integers for some tags; missing tags are not added.

    Values are replaced at their positions. Rewriting EXIF with Pillow would lose what Pillow does not understand, such
    as makers' notes, whose offsets count from the beginning of the data.
    """
    start = len(ifd.PREFIX) if exif.startswith(ifd.PREFIX) else 0
    body = bytearray(exif[start:])
    try:
        order, first = ifd.first_directory(body)
        details = [value for _, tag, value in ifd.integers(body, order, first) if tag == ifd.EXIF_IFD]
        for offset in (first, *details):
            for place, tag, _ in ifd.integers(body, order, offset):
                if tag in values:
                    struct.pack_into(f"{order}HHII", body, place, tag, ifd.LONG, 1, values[tag])
    except BrokenDirectory:
        warn("its EXIF cannot be read and is kept unchanged")
        return exif
    return exif[:start] + bytes(body)


def orientation_exif(orientation: int) -> bytes:
    """EXIF with an orientation, 1 to 8, and nothing else."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, ORIENTATION, ifd.SHORT, 1, orientation, 0)


def orientation_of(exif: bytes) -> int:
    """The orientation in EXIF, 1 to 8; 1 (upright) if there is none."""
    body = exif.removeprefix(ifd.PREFIX)
    try:
        found = [value for _, tag, value in ifd.integers(body, *ifd.first_directory(body)) if tag == ORIENTATION]
    except BrokenDirectory:
        return 1
    return found[0] if found and 1 <= found[0] <= 8 else 1


def resolution(value: Any) -> tuple[float, float] | None:
    """Dots per inch if `value` is a pair of positive numbers that some format can store; else None, with a warning for
    numbers that none can store."""
    try:
        across, down = (float(dots) for dots in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < across < math.inf and 0 < down < math.inf):
        return None
    if min(across, down) < LEAST_DOTS or max(across, down) > MOST_DOTS:
        warn(f"its resolution of {across:g} x {down:g} dots per inch cannot be stored and was dropped")
        return None
    return across, down


def check_profile(metadata: dict[str, Any], pixels: np.ndarray) -> None:
    """Warn if the ICC profile is broken or of another colour space; viewers ignore such a profile."""
    if "icc_profile" not in metadata:
        return
    space, expected = profile_space(metadata["icc_profile"]), PROFILE_SPACES[pixels.shape[2:]]
    if space != expected:
        found = f"is for {space}" if space else "cannot be read"
        warn(f"its ICC profile {found}, expected {expected}; it is kept unchanged")


def profile_space(profile: bytes) -> str | None:
    """The colour space of an ICC profile, such as ``RGB`` or ``CMYK``; None if it cannot be read."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except Exception:  # LittleCMS may raise anything on malformed bytes
        return None


def to_srgb(image: Image.Image, metadata: dict[str, Any]) -> Image.Image:
    """Convert a CMYK or Lab image of Pillow to sRGB; its profile and EXIF's colour space are removed from metadata."""
    profile = metadata.pop("icc_profile", None)
    if "exif" in metadata:
        metadata["exif"] = with_values(metadata["exif"], {COLOUR_SPACE: SRGB})
    if image.mode != "CMYK" or profile is None:
        return image.convert("RGB")
    try:
        if profile_space(profile) != "CMYK":
            raise ValueError("not a CMYK profile")
        inks, screen = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, inks, screen, outputMode="RGB")
        return cast(Image.Image, converted)  # None only in place
    except Exception:  # as in `profile_space`
        warn("its ICC profile is not for CMYK; it was converted to RGB without the profile")
        return image.convert("RGB")

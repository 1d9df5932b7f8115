"""Image formats: their suffixes, what they can store, and how results are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import features

from bidiffsr_arch.errors import InputError

BASIC = ("icc_profile", "exif", "xmp")


@dataclass(frozen=True)
class Format:
    """A format of image files.

    Attributes:
        name: Pillow's name of the format.
        longest_side: largest height and width in pixels.
        metadata: the kinds of metadata that it can store, see `Photo`.
        has_alpha: whether it can store transparency.
        has_16_bits: whether it can store 16 bits per sample.
        options: Pillow's options for writing, for high quality at a reasonable size.
    """

    name: str
    longest_side: int
    metadata: tuple[str, ...]
    has_alpha: bool = True
    has_16_bits: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


PNG = Format("PNG", 2**31 - 1, (*BASIC, "dpi", "PNG"), has_16_bits=True)
# JPEG allows 65535 pixels, but libjpeg, which nearly all programs use, only 65500.
JPEG = Format("JPEG", 65500, (*BASIC, "dpi", "JPEG"), has_alpha=False,
              options={"quality": 95, "subsampling": "4:4:4"})  # fmt: skip
WEBP = Format("WEBP", 16383, BASIC, options={"quality": 95, "method": 4})
TIFF = Format("TIFF", 2**31 - 1, (*BASIC, "dpi", "TIFF"), has_16_bits=True)
BMP = Format("BMP", 2**31 - 1, ("dpi",))
# libavif writes up to 65536 pixels, but by default reads at most 32768.
AVIF = Format("AVIF", 32768, BASIC, options={"quality": 95, "subsampling": "4:4:4"})

FORMATS: dict[str, Format] = {
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".jfif": JPEG,
    ".webp": WEBP,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".bmp": BMP,
}
if features.check("avif"):  # some builds of Pillow lack it
    FORMATS[".avif"] = AVIF
SUFFIXES = ", ".join(FORMATS)
READABLE = tuple(dict.fromkeys(form.name for form in FORMATS.values()))
KINDS = f"{', '.join(READABLE[:-1])} or {READABLE[-1]}"


def format_of(path: Path) -> Format:
    """The format of a file name, by its suffix.

    Raises:
        InputError: it is not a format that can be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"expected a name in {SUFFIXES}, got {path}; convert or rename it")
    return FORMATS[path.suffix.lower()]


def check_size(path: Path, height: int, width: int) -> None:
    """Raise InputError if the format of a file name cannot store an image of this size."""
    form = format_of(path)
    if max(height, width) > form.longest_side:
        raise InputError(
            f"expected a result of at most {form.longest_side} pixels per side, the limit of {form.name}, got "
            f"{width}x{height} for {path.name}; convert it to PNG or TIFF first"
        )

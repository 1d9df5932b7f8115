"""Convert images of Pillow to arrays of gray or RGB, with or without alpha, and encode arrays with Pillow."""

import io
from typing import Any

import numpy as np
from PIL import Image

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale.alpha import with_transparent_colour
from bidiffsr_arch.upscale.metadata import resolution, to_srgb, warn

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
GRAY_MODES = ("1", "L", "LA", "La")
OTHER_COLOURS = ("CMYK", "LAB")
NOT_KEPT = ("transparency",)  # entries of an image's `info` that apply only to its old pixels


def pixels_of(image: Image.Image, metadata: dict[str, Any]) -> np.ndarray:
    """Pixels in the form of `Photo`; CMYK and Lab become sRGB, and their profile is removed from `metadata`.

    Raises:
        InputError: the mode has more than 16 bits, or floats.
    """
    transparent = image.info.get("transparency")
    if image.mode in DEEP_MODES:
        pixels = np.asarray(image).astype(np.uint16)
        return pixels if transparent is None else with_transparent_colour(pixels, np.array(transparent, np.uint16))
    if image.mode in ("I", "F"):
        raise InputError(f"expected an image with 8 or 16 bits per sample, got Pillow's mode {image.mode}; convert it")
    if image.mode in OTHER_COLOURS:
        image = to_srgb(image, metadata)
    is_gray, has_alpha = image.mode in GRAY_MODES, image.has_transparency_data
    mode = ("LA" if has_alpha else "L") if is_gray else ("RGBA" if has_alpha else "RGB")
    return np.asarray(image.convert(mode))


def metadata_of(image: Image.Image) -> dict[str, Any]:
    """The metadata that Pillow read, as raw bytes, in the form of `Photo`."""
    metadata = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if image.info.get(name)}
    if dots := resolution(image.info.get("dpi")):
        metadata["dpi"] = dots
    return metadata


def info_of(image: Image.Image) -> dict[str, Any]:
    """The entries of an image's `info` that apply to a resized image, with the image's current EXIF."""
    info = {str(name): value for name, value in image.info.items() if name not in NOT_KEPT}
    try:
        if exif := image.getexif():
            info["exif"] = exif.tobytes()
    except Exception:  # Pillow may raise anything on tags of wrong types
        warn("its EXIF cannot be read and is kept unchanged")
    return info


def encode(pixels: np.ndarray, metadata: dict[str, Any], name: str, **options: Any) -> bytes:
    """Encode an image in Pillow's format `name`; EXIF that it cannot read is dropped with a warning."""
    try:
        return saved(pixels, name, **options, **metadata)
    except Exception:  # Pillow may raise anything on malformed EXIF
        if "exif" not in metadata:
            raise
    warn("its EXIF cannot be read and was dropped")
    return saved(pixels, name, **options, **{key: value for key, value in metadata.items() if key != "exif"})


def saved(pixels: np.ndarray, name: str, **arguments: Any) -> bytes:
    """The bytes of an image file in Pillow's format `name`; arguments are those of `Image.save`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **arguments)
    return buffer.getvalue()

"""Previews for the page: 8 bits, upright, in a format that browsers display."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bidiffsr_arch.upscale.photo import Photo, read_photo, to_pillow


def write_previews(source: Path, result: Path, folder: Path) -> tuple[Path, Path]:
    """Write the image, upsampled by bicubic interpolation, and the result for the page's slider.

    Args:
        folder: folder for ``before`` and ``after``, JPEG, or PNG for images with alpha; created if missing.
    Returns:
        Paths of both; they have the same size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    after = displayed(read_photo(result))
    before = displayed(read_photo(source)).resize(after.size, Image.Resampling.BICUBIC)
    return _write(before, folder / "before"), _write(after, folder / "after")


def displayed(photo: Photo) -> Image.Image:
    """The photo with 8 bits, its orientation applied, and no metadata except its colour profile."""
    if photo.pixels.dtype == np.uint16:
        photo = Photo((photo.pixels // 257).astype(np.uint8), photo.metadata)
    image = to_pillow(photo)
    with suppress(Exception):  # EXIF may be malformed in any way; the result keeps it as it is
        image = ImageOps.exif_transpose(image)
    profile = photo.metadata.get("icc_profile")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _write(image: Image.Image, path: Path) -> Path:
    path = path.with_suffix(".png" if image.has_transparency_data else ".jpg")
    image.save(path, quality=95, subsampling="4:4:4") if path.suffix == ".jpg" else image.save(path, compress_level=1)
    return path

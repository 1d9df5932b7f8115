"""Packed networks that come with the package. README.md in this folder describes how they were trained."""

from importlib.resources import files
from pathlib import Path

from bidiffsr_arch.errors import InputError, choose

__all__ = ["INPUTS", "SHIPPED", "all_shipped_weights", "shipped_weights"]

FOLDER = Path(str(files("bidiffsr_arch") / "weights"))

SHIPPED: dict[str, dict[int, str]] = {
    "clean": {2: "BIDiffSR_small_x2.safetensors", 4: "BIDiffSR_small_x4.safetensors"},
    "jpeg": {2: "BIDiffSR_small_x2_jpeg.safetensors", 4: "BIDiffSR_small_x4_jpeg.safetensors"},
}
"""Files by the kind of images that they were trained on, and by scale."""

INPUTS = {
    "clean": "without visible artifacts of compression",
    "jpeg": "JPEGs with visible artifacts, of a quality of about 50 to 95",
}
"""The kinds of `SHIPPED` in words."""


def all_shipped_weights() -> list[Path]:
    """Paths of all files of `SHIPPED`, in its order."""
    return [FOLDER / file for by_scale in SHIPPED.values() for file in by_scale.values()]


def shipped_weights(scale: int = 2, kind: str = "clean") -> Path:
    """Path of the small network that upscales by `scale`.

    Args:
        scale: 2 or 4.
        kind: kind of images, a key of `SHIPPED`.
    Raises:
        InputError: no weights for this kind or scale come with the package.
    """
    by_scale = choose("the kind of input of the package's weights", kind, SHIPPED)
    if scale not in by_scale:
        known = " or ".join(map(str, by_scale))
        raise InputError(f"expected a scale of {known}, got {scale}; use your own weights for another scale")
    return FOLDER / by_scale[scale]

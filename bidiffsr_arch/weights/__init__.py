"""Trained networks that come with the package, packed. README.md in this folder says how they were trained."""

from importlib.resources import files
from pathlib import Path

from bidiffsr_arch.errors import InputError

__all__ = ["SHIPPED", "shipped_weights"]

FOLDER = Path(str(files("bidiffsr_arch") / "weights"))
SHIPPED = {2: "BIDiffSR_small_x2.safetensors", 4: "BIDiffSR_small_x4.safetensors"}


def shipped_weights(scale: int = 2) -> Path:
    """Path of the small network that upscales by `scale` (2 or 4).

    Raises:
        InputError: another scale.
    """
    if scale not in SHIPPED:
        known = " or ".join(map(str, SHIPPED))
        raise InputError(f"expected a scale of {known}, got {scale}; use your own weights for another scale")
    return FOLDER / SHIPPED[scale]

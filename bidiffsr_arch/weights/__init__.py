"""The trained networks that come with the package, packed: README.md beside this file says how they were made."""

from importlib.resources import files
from pathlib import Path

from bidiffsr_arch.errors import InputError

FOLDER = Path(str(files("bidiffsr_arch") / "weights"))
SHIPPED = {2: "BIDiffSR_small_x2.safetensors", 4: "BIDiffSR_small_x4.safetensors"}


def shipped_weights(scale: int = 2) -> Path:
    """Where the small network that enlarges by `scale` (2 or 4) lies on disk.

    Raises:
        InputError: another scale.
    """
    if scale not in SHIPPED:
        known = " or ".join(map(str, SHIPPED))
        raise InputError(f"expected a scale of {known}, got {scale}; for another, give weights of your own")
    return FOLDER / SHIPPED[scale]

"""Trained weights put to use: images of any size and format, upscaled."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidiffsr_arch.upscale.upscaler import Upscaler

__all__ = ["OVERLAP", "TILE", "Upscaler"]

TILE, OVERLAP = 256, 32  # result pixels


def __getattr__(name: str) -> Any:
    """`Upscaler`, imported when it is asked for: the command's arguments need only the numbers."""
    if name != "Upscaler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bidiffsr_arch.upscale.upscaler import Upscaler

    return Upscaler

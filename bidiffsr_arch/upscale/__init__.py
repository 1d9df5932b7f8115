"""Upscale images of any size and format with trained weights.

`upscaler` has the API; `tiles` and `direct` run a network on tiles, which `spans` lays out; `photo`, `formats`,
`metadata` and the modules named after formats read and write image files; `plan` and `batch` implement
`basicsr upscale`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidiffsr_arch.upscale.upscaler import Upscaler

__all__ = ["AUTO", "OVERLAP", "Upscaler"]

AUTO = "auto"  # the weights' own size of tiles
OVERLAP = 32  # result pixels


def __getattr__(name: str) -> Any:
    """`Upscaler`, imported on first use, because the command line only needs `OVERLAP`."""
    if name != "Upscaler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bidiffsr_arch.upscale.upscaler import Upscaler

    return Upscaler

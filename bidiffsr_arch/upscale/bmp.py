"""BMP; Pillow reads transparency, but does not write it."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from bidiffsr_arch.upscale.metadata import METRE
from bidiffsr_arch.upscale.pillow import saved

BITFIELDS = 3  # no compression; masks define the positions of the channels
MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)  # red, green, blue, alpha
SRGB = int.from_bytes(b"sRGB", "big")
DOTS = (96, 96)  # per inch


def encode(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """Encode uint8 pixels in the form of `Photo`; with alpha, the file has a BITMAPV4HEADER."""
    if pixels.shape[2:] not in ((2,), (4,)):
        return saved(pixels, "BMP", **metadata)
    height, width = pixels.shape[:2]
    channels = [0, 0, 0, 1] if pixels.shape[2] == 2 else [2, 1, 0, 3]
    rows = pixels[::-1, :, channels].tobytes()
    dots = (round(each / METRE) for each in metadata.get("dpi", DOTS))
    basic = struct.pack("<IiiHHIIIIII", 108, width, height, 1, 32, BITFIELDS, len(rows), *dots, 0, 0)
    header = basic + struct.pack("<5I", *MASKS, SRGB) + bytes(48)
    offset = 14 + len(header)
    return struct.pack("<2sIII", b"BM", offset + len(rows), 0, offset) + header + rows

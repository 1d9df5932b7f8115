"""JPEG (ISO/IEC 10918-1) by segments: pixels are decoded from a file without metadata; metadata is kept as bytes."""

import struct
from typing import Any

import numpy as np

from bidiffsr_arch.files import jpeg_segments
from bidiffsr_arch.upscale import ifd
from bidiffsr_arch.upscale.metadata import warn
from bidiffsr_arch.upscale.pillow import saved

SIGNATURE = b"\xff\xd8\xff"
Segment = tuple[int, bytes]

APP0, APP1, APP2, APP13, APP14, APP15, COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE
FOR_DECODING = (APP0, APP14)  # JFIF and Adobe declare the colour space of the samples
METADATA = {*range(APP0, APP15 + 1), COM} - set(FOR_DECODING)
XMP, EXTENDED_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PROFILE, PHOTOSHOP, PREVIEWS = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
LONGEST = 65533  # bytes in a segment
MOST_DENSITY = 65535  # dots per inch


def split(data: bytes, whole: bool = True) -> tuple[bytes, list[Segment]]:
    """Split a file into a file without metadata, and its metadata.

    Args:
        whole: keep the pixels; if false, only the bytes before them, which are enough to identify the image.
    """
    bare, segments, stop = [bytes(data[:2])], [], 2  # after the loop, stop is where the pixels begin
    for marker, begin, stop in jpeg_segments(data):
        if marker in METADATA:
            segments.append((marker, bytes(data[begin + 4 : stop])))
        else:
            bare.append(data[begin:stop])
    bare.append(data[stop:] if whole else data[stop : stop + 1024])
    return b"".join(bare), segments


def metadata_of(segments: list[Segment]) -> dict[str, Any]:
    """Metadata in the form of `Photo`. The key ``JPEG`` has the segments that only JPEG has, unchanged: comments,
    Photoshop's blocks with IPTC, and extended XMP.
    """
    metadata: dict[str, Any] = {}
    own, profile, dropped = [], [], []
    for marker, data in segments:
        if marker == APP1 and data.startswith(ifd.PREFIX):
            metadata.setdefault("exif", data)
        elif marker == APP1 and data.startswith(XMP):
            metadata.setdefault("xmp", data.removeprefix(XMP))
        elif marker == APP2 and data.startswith(PROFILE):
            profile.append(data.removeprefix(PROFILE))
        elif marker == COM or data.startswith((EXTENDED_XMP, PHOTOSHOP)):
            own.append((marker, data))
        elif marker == APP2 and data.startswith(PREVIEWS):
            dropped.append("previews or a gain map behind the image")
        else:
            dropped.append(f"APP{marker - APP0} segments")
    if profile:
        _join_profile(profile, metadata)
    if dropped:
        warn(f"{', '.join(sorted(set(dropped)))} may not apply to the result and were dropped")
    return metadata | ({"JPEG": own} if own else {})


def _join_profile(parts: list[bytes], metadata: dict[str, Any]) -> None:
    """Join the segments of a profile; each contains its number and the number of segments."""
    numbered = {part[0]: part[2:] for part in parts if len(part) > 2 and part[1] == len(parts)}
    if sorted(numbered) == list(range(1, len(parts) + 1)):
        metadata["icc_profile"] = b"".join(numbered[number] for number in sorted(numbered))
    else:
        warn("its ICC profile is incomplete and was dropped")


def encode(pixels: np.ndarray, metadata: dict[str, Any], **options: Any) -> bytes:
    """Encode a JPEG with Pillow's options; metadata that does not fit into a segment is dropped with a warning."""
    kept = {name: value for name, value in metadata.items() if name in ("icc_profile", "dpi")}
    if "dpi" in kept and not all(1 <= round(dots) <= MOST_DENSITY for dots in kept["dpi"]):
        warn(f"its resolution of {kept.pop('dpi')[0]:g} dots per inch cannot be stored in a JPEG and was dropped")
    kept["extra"] = b"".join(_segment(marker, data) for marker, data in metadata.get("JPEG", ()))
    for name, prefix in (("exif", ifd.PREFIX), ("xmp", XMP)):
        data = metadata.get(name, b"").removeprefix(prefix)
        if len(prefix + data) > LONGEST:
            warn(f"its {name.upper()} is too long for a JPEG and was dropped")
        elif data:
            kept["extra"] = _segment(APP1, prefix + data) + kept["extra"]
    return saved(pixels, "JPEG", **options, **kept)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

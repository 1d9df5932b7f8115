"""PNG (W3C, third edition) by chunks: pixels are decoded from a file without metadata; metadata is kept as bytes."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale import ifd
from bidiffsr_arch.upscale.alpha import with_transparent_colour
from bidiffsr_arch.upscale.metadata import METRE, resolution, warn
from bidiffsr_arch.upscale.pillow import saved

SIGNATURE = b"\x89PNG\r\n\x1a\n"
Chunk = tuple[bytes, bytes]

CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Chunks that define how pixels are displayed; they apply to a resized image, too.
COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
# Chunks that apply only to the old pixels (time of change, significant bits, histogram, …), dropped without a warning.
OBSOLETE = (b"tIME", b"sBIT", b"hIST", b"acTL", b"tRNS", b"iDOT")
XMP = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword of an uncompressed iTXt chunk, without language
MOST_PROFILE = 2**26  # bytes of an ICC profile: decompressing one must not exhaust the memory

GRAY, RGB, PALETTE, GRAY_ALPHA = 0, 2, 3, 4
COLOUR_TYPES, UP = {(): GRAY, (2,): GRAY_ALPHA, (3,): RGB, (4,): 6}, 2


def split(data: bytes, whole: bool = True) -> tuple[bytes, list[Chunk]]:
    """Split a file into a file without metadata, and its metadata.

    Args:
        whole: keep the pixels; if false, only the bytes before them, which are enough to identify the image.
    """
    bare, chunks, place = [SIGNATURE], [], len(SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        stop = place + 12 + length
        if name == b"IDAT" and not whole:
            bare.append(data[place : place + 8])
            break
        if name in CRITICAL:
            bare.append(data[place:stop])
            if name == b"IEND":  # bytes after it are not part of the image
                break
        elif data[place:stop] == chunk(name, data[place + 8 : stop - 4]):
            chunks.append((name, bytes(data[place + 8 : stop - 4])))
        elif whole:
            warn(f"its chunk {name.decode('latin-1')} is damaged and was dropped")
        place = stop
    return b"".join(bare), chunks


def frames(chunks: list[Chunk]) -> int:
    """Number of images in the file: more than one in an animation."""
    counts = [int.from_bytes(data[:4], "big") for name, data in chunks if name == b"acTL"]
    return counts[0] if counts else 1


def decode(bare: bytes, chunks: list[Chunk]) -> np.ndarray:
    """Pixels in the form of `Photo`.

    Raises:
        Exception: the file is damaged; an InputError, or any error of a decoder.
    """
    depth, colour_type = bare[24], bare[25]
    transparent = next((data for name, data in chunks if name == b"tRNS"), None)
    if colour_type == PALETTE:
        place = bare.find(b"IDAT") - 4
        tagged = bare if transparent is None else bare[:place] + chunk(b"tRNS", transparent) + bare[place:]
        with Image.open(io.BytesIO(tagged)) as image:
            return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    pixels = _decode_16_bits(bare, colour_type) if depth == 16 else _decode_8_bits(bare, colour_type)
    if transparent is None or colour_type not in (GRAY, RGB):
        return pixels
    step = 255 // (2**depth - 1) if depth < 8 else 1  # Pillow scales fewer bits to 8
    samples = [int.from_bytes(transparent[place : place + 2], "big") * step for place in range(0, len(transparent), 2)]
    if len(samples) != (3 if colour_type == RGB else 1) or max(samples) > np.iinfo(pixels.dtype).max:
        warn("its chunk tRNS is damaged and was dropped")
        return pixels
    return with_transparent_colour(pixels, np.array(samples, pixels.dtype))


def _decode_8_bits(bare: bytes, colour_type: int) -> np.ndarray:
    modes = {GRAY: "L", RGB: "RGB", GRAY_ALPHA: "LA"}
    with Image.open(io.BytesIO(bare)) as image:
        return np.asarray(image.convert(modes.get(colour_type, "RGBA")))


def _decode_16_bits(bare: bytes, colour_type: int) -> np.ndarray:
    """Decode with OpenCV, because Pillow reduces 16-bit colour to 8 bits."""
    pixels = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise InputError("its 16 bits cannot be decoded")
    if colour_type == GRAY_ALPHA:  # OpenCV decodes it as colour
        return np.ascontiguousarray(pixels[..., [0, 3]])
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def metadata_of(chunks: list[Chunk]) -> dict[str, Any]:
    """Metadata in the form of `Photo`. The key ``PNG`` has the chunks that only PNG has, unchanged: colour chunks, and
    all chunks that the standard calls safe to copy, such as texts.
    """
    metadata: dict[str, Any] = {}
    own, dropped = [], []
    for name, data in chunks:
        if name == b"iCCP":
            _read_profile(data, metadata)
        elif name == b"eXIf":
            metadata["exif"] = data
        elif name == b"iTXt" and data.startswith(XMP):
            metadata["xmp"] = data.removeprefix(XMP)
        elif name == b"pHYs" and len(data) == 9 and data[8] == 1:
            if dots := resolution([count * METRE for count in struct.unpack(">II", data[:8])]):
                metadata["dpi"] = dots
        elif name in OBSOLETE:
            continue
        elif (name in COLOUR or name[3:].islower()) and _is_readable(name, data):  # fourth letter: safe to copy
            own.append((name, data))
        else:
            dropped.append(name.decode("latin-1"))
    if dropped:
        warn(f"its PNG chunks {', '.join(sorted(set(dropped)))} cannot be read or may not apply to the result, and "
             "were dropped")  # fmt: skip
    return metadata | ({"PNG": own} if own else {})


def _read_profile(data: bytes, metadata: dict[str, Any]) -> None:
    _, _, packed = data.partition(b"\0")
    try:
        inflater = zlib.decompressobj()
        metadata["icc_profile"] = inflater.decompress(packed[1:], MOST_PROFILE)
        if not inflater.eof:
            raise zlib.error("incomplete or too large")
    except zlib.error:
        metadata.pop("icc_profile", None)
        warn("its ICC profile cannot be decompressed and was dropped")


def _is_readable(name: bytes, data: bytes) -> bool:
    """Whether Pillow opens a PNG with this chunk; for example, it refuses texts that inflate to more than 1 MB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, GRAY, 0, 0, 0))
    try:
        Image.open(io.BytesIO(SIGNATURE + header + chunk(name, data) + b"\0\0\0\0IDAT")).close()
    except Exception:  # Pillow may raise anything
        return False
    return True


def encode(pixels: np.ndarray, metadata: dict[str, Any]) -> bytes:
    """Encode a PNG with 8 or 16 bits."""
    content = _encode_16_bits(pixels) if pixels.dtype == np.uint16 else saved(pixels, "PNG")
    behind_header = len(SIGNATURE) + 25
    return content[:behind_header] + b"".join(_chunks_of(metadata)) + content[behind_header:]


def _chunks_of(metadata: dict[str, Any]) -> list[bytes]:
    chunks = []
    if "icc_profile" in metadata:
        chunks.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata["icc_profile"])))
    if "dpi" in metadata:
        chunks.append(chunk(b"pHYs", struct.pack(">IIB", *(round(dots / METRE) for dots in metadata["dpi"]), 1)))
    if "exif" in metadata:
        chunks.append(chunk(b"eXIf", metadata["exif"].removeprefix(ifd.PREFIX)))
    if "xmp" in metadata:
        chunks.append(chunk(b"iTXt", XMP + metadata["xmp"]))
    return chunks + [chunk(*own) for own in metadata.get("PNG", ())]


def _encode_16_bits(pixels: np.ndarray) -> bytes:
    """Encode 16 bits directly: Pillow cannot write 16-bit colour, and OpenCV cannot write gray with alpha."""
    height, width = pixels.shape[:2]
    samples = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    differences = np.diff(samples, axis=0, prepend=np.zeros_like(samples[:1]))
    rows = np.insert(differences, 0, UP, axis=1)  # filter type 2: each byte minus the one above
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[pixels.shape[2:]], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk(*each) for each in chunks)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk as stored in a file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

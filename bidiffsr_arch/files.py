"""Strict reading of images, and atomic writing of files."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from bidiffsr_arch.errors import InputError

UNFINISHED = ".unfinished-"
"""Prefix of the temporary names of files that are being written; a killed process leaves them behind."""

# First bytes of an image file, and bytes required near its end: some versions of OpenCV silently decode truncated
# files.
SIGNATURES = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
SOS, EOI = 0xDA, 0xD9  # markers of JPEG: start of a scan, end of the image
BLOCK = 1 << 20


def read_image(path: Path | str) -> np.ndarray:
    """Read an image as BGR uint8 of shape (H, W, 3).

    Raises:
        InputError: there is no such file, or it cannot be decoded.
    """
    if not Path(path).is_file():
        raise InputError(f"expected an image at {path}, found no such file")
    return decode(Path(path).read_bytes(), path)


def decode(content: bytes, source: Path | str, flag: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image file's bytes to uint8, BGR by default.

    Args:
        source: origin of the bytes, for the message.
        flag: `cv2.IMREAD_COLOR`, `cv2.IMREAD_GRAYSCALE`, `cv2.IMREAD_UNCHANGED`.
    Raises:
        InputError: they are not a complete image.
    """
    try:
        image = None if is_truncated(content) else cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:  # for an empty file, or more pixels than OpenCV reads
        image = None
    if image is None:
        raise InputError(f"{source} cannot be decoded: {len(content)} bytes, truncated or no image; replace it")
    return image


def is_truncated(content: bytes) -> bool:
    """Whether the end of a PNG or JPEG is missing."""
    content = bytes(content)  # LMDB may return a view
    pixels = max((stop for _, _, stop in jpeg_segments(content)), default=0)  # a thumbnail before them has its own end
    return any(content.startswith(head) and content.rfind(tail, pixels) < 0 for head, tail in SIGNATURES.items())


def jpeg_segments(data: bytes | mmap) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment before the pixels of a JPEG (ISO/IEC 10918-1); none for other formats.

    The segment's data begin 4 bytes after its begin; the end of the last segment may lie behind that of the data.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and (marker := data[place + 1]) not in (SOS, EOI):
        if marker == 0xFF:  # padding
            place += 1
            continue
        stop = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, place, stop
        place = stop


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR uint8 image as PNG, replacing an existing file."""
    write_bytes(path, cv2.imencode(".png", image)[1].tobytes())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError if `path` exists, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise InputError(f"expected a new file, but {path} exists; choose another name or add --overwrite")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which replaces `path` when the block ends.

    Even after a kill or a power failure, `path` is absent, the complete old file, or the complete new one: the content
    is written under a temporary name in the same folder, flushed to the disk, and renamed. Temporary names are unique,
    so that several processes can write the same file, and short, so that `path` can have the longest name that the file
    system allows.

    Raises:
        OSError: it cannot be written; an old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the folder may not be writable
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

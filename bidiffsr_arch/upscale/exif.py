"""Copy EXIF and GPS directories between TIFF files and EXIF blocks; their offsets count from the start of the file."""

import mmap
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from bidiffsr_arch.upscale.metadata import EXIF_IFD, EXIF_PREFIX, LONG, warn

Order = Literal["<", ">"]
ORDERS: dict[bytes, Order] = {b"II*\0": "<", b"MM\0*": ">"}  # first bytes of TIFF files and EXIF blocks -> for struct
HEADER = 8  # bytes before the first directory of an EXIF block
GPS_IFD, INTEROPERABILITY, MAKER_NOTE = 0x8825, 0xA005, 0x927C
# Directories by the tag that points to them, each with the directories that it may contain.
DIRECTORIES: Mapping[int, Mapping] = {EXIF_IFD: {INTEROPERABILITY: {}}, GPS_IFD: {}}
POINTERS = {EXIF_IFD, GPS_IFD, INTEROPERABILITY}
# Bytes of a value by its type, from BYTE to IFD (TIFF 6.0, and its supplement 1).
SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))
Entry = tuple[int, int, int, bytes]  # tag, type, count, and a value or its offset


class BrokenDirectory(ValueError):
    """A directory that cannot be read."""


def order_of(exif: bytes) -> Order:
    """The byte order of an EXIF block, for struct; little-endian if it is broken."""
    return ORDERS.get(exif.removeprefix(EXIF_PREFIX)[:4], "<")


def block_of(tiff: bytes | mmap.mmap, tags: Collection[int]) -> bytes:
    """An EXIF block with some tags of a TIFF, including EXIF and GPS directories; empty if the TIFF has none of them.

    Raises:
        BrokenDirectory: a directory is broken, or the file is a BigTIFF.
    """
    order, entries = _first_directory(tiff)
    chosen = [entry for entry in entries if entry[0] in tags]
    return tiff[:4] + struct.pack(f"{order}I", HEADER) + _copied(tiff, order, chosen, HEADER) if chosen else b""


def with_tags(tiff: bytes, exif: bytes, tags: Collection[int]) -> bytes:
    """Add tags of an EXIF block to a TIFF that does not have them yet.

    A new first directory is appended, which contains the tags of the old one and the new tags.

    Args:
        tiff: in the byte order of `exif`, see `order_of`.
    Raises:
        BrokenDirectory: a directory is broken.
    """
    block = exif.removeprefix(EXIF_PREFIX)
    order, entries = _first_directory(block)
    _, own = _first_directory(tiff)
    present = {entry[0] for entry in own}
    chosen = [entry for entry in entries if entry[0] in tags and entry[0] not in present]
    if not chosen:
        return tiff
    place = len(tiff) + len(tiff) % 2  # values begin at even offsets
    directory = _copied(block, order, chosen, place, own=own)
    return tiff[:4] + struct.pack(f"{order}I", place) + tiff[HEADER:].ljust(place - HEADER, b"\0") + directory


def _first_directory(data: bytes | mmap.mmap) -> tuple[str, list[Entry]]:
    if data[:4] not in ORDERS or len(data) < HEADER:
        raise BrokenDirectory("no classic TIFF header")
    order = ORDERS[data[:4]]
    return order, _entries(data, order, *struct.unpack_from(f"{order}I", data, 4))


def _entries(data: bytes | mmap.mmap, order: str, offset: int) -> list[Entry]:
    try:
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        return [struct.unpack_from(f"{order}HHI4s", data, offset + 2 + 12 * number) for number in range(count)]
    except struct.error as error:
        raise BrokenDirectory(str(error)) from error


def _directory(order: str, entries: list[Entry]) -> bytes:
    packed = b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in entries)
    return struct.pack(f"{order}H", len(entries)) + packed + bytes(4)  # no further directory


def _copied(
    data: bytes | mmap.mmap,
    order: str,
    entries: list[Entry],
    place: int,
    directories: Mapping[int, Mapping] = DIRECTORIES,
    own: Sequence[Entry] = (),
) -> bytes:
    """A directory to be written at `place`, followed by its values and its subdirectories.

    Makers' notes are dropped with a warning, because they may contain offsets in an unknown format.

    Args:
        own: existing entries, whose offsets stay valid.
    """
    if any(entry[0] == MAKER_NOTE for entry in entries):
        warn("its MakerNote, which is valid only at its position in the file, was dropped")
    kept = [entry for entry in entries if entry[0] != MAKER_NOTE and entry[0] not in POINTERS - directories.keys()]
    copied, content, start = [*own], b"", place + len(_directory(order, [*kept, *own]))
    for tag, kind, count, value in kept:
        (offset,) = struct.unpack(f"{order}I", value)
        size = SIZES.get(kind, 1) * count
        moved = struct.pack(f"{order}I", start + len(content))
        if tag in directories:
            inner = _entries(data, order, offset)
            content += _copied(data, order, inner, start + len(content), directories[tag])
            kind, count, value = LONG, 1, moved
        elif size > len(value):
            if offset + size > len(data) or len(content) > len(data):  # the latter if values overlap
                raise BrokenDirectory(f"tag {tag} ends after the file")
            content += data[offset : offset + size] + bytes(size % 2)
            value = moved
        copied.append((tag, kind, count, value))
    return _directory(order, sorted(copied)) + content

"""Copy EXIF and GPS directories between TIFF files and EXIF blocks; their offsets count from the start of the file."""

import mmap
import struct
from collections.abc import Collection, Mapping, Sequence

from bidiffsr_arch.upscale import ifd
from bidiffsr_arch.upscale.ifd import EXIF_IFD, GPS_IFD, HEADER, INTEROPERABILITY, MAKER_NOTE, BrokenDirectory, Entry
from bidiffsr_arch.upscale.metadata import warn

# Directories by the tag that points to them, each with the directories that it may contain.
DIRECTORIES: Mapping[int, Mapping] = {EXIF_IFD: {INTEROPERABILITY: {}}, GPS_IFD: {}}
POINTERS = {EXIF_IFD, GPS_IFD, INTEROPERABILITY}
# Bytes of a value by its type, from BYTE to IFD (TIFF 6.0, and its supplement 1).
SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))


def order_of(exif: bytes) -> ifd.Order:
    """The byte order of an EXIF block, for struct; little-endian if it is broken."""
    return ifd.ORDERS.get(exif.removeprefix(ifd.PREFIX)[:4], "<")


def block_of(tiff: bytes | mmap.mmap, tags: Collection[int]) -> bytes:
    """An EXIF block with some tags of a TIFF, including EXIF and GPS directories; empty if the TIFF has none of them.

    Raises:
        BrokenDirectory: a directory is broken, or the file is a BigTIFF.
    """
    order, first = ifd.first_directory(tiff)
    chosen = [entry for entry in ifd.entries(tiff, order, first) if entry.tag in tags]
    return tiff[:4] + struct.pack(f"{order}I", HEADER) + _copied(tiff, order, chosen, HEADER) if chosen else b""


def with_tags(tiff: bytes, exif: bytes, tags: Collection[int]) -> bytes:
    """Add tags of an EXIF block to a TIFF that does not have them yet.

    A new first directory is appended, which contains the tags of the old one and the new tags.

    Args:
        tiff: in the byte order of `exif`, see `order_of`.
    Raises:
        BrokenDirectory: a directory is broken.
    """
    block = exif.removeprefix(ifd.PREFIX)
    order, first = ifd.first_directory(block)
    own = ifd.entries(tiff, *ifd.first_directory(tiff))
    wanted = set(tags) - {entry.tag for entry in own}
    chosen = [entry for entry in ifd.entries(block, order, first) if entry.tag in wanted]
    if not chosen:
        return tiff
    place = len(tiff) + len(tiff) % 2  # values begin at even offsets
    directory = _copied(block, order, chosen, place, own=own)
    return tiff[:4] + struct.pack(f"{order}I", place) + tiff[HEADER:].ljust(place - HEADER, b"\0") + directory


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
    if any(entry.tag == MAKER_NOTE for entry in entries):
        warn("its MakerNote, which is valid only at its position in the file, was dropped")
    left_out = {MAKER_NOTE} | POINTERS - directories.keys()
    kept = [entry for entry in entries if entry.tag not in left_out]
    copied, content, start = [*own], b"", place + len(_directory(order, [*kept, *own]))
    for tag, kind, count, value in kept:
        (offset,) = struct.unpack(f"{order}I", value)
        size = SIZES.get(kind, 1) * count
        moved = struct.pack(f"{order}I", start + len(content))
        if tag in directories:
            inner = ifd.entries(data, order, offset)
            content += _copied(data, order, inner, start + len(content), directories[tag])
            kind, count, value = ifd.LONG, 1, moved
        elif size > len(value):
            if offset + size > len(data) or len(content) > len(data):  # the latter if values overlap
                raise BrokenDirectory(f"tag {tag} ends after the file")
            content += data[offset : offset + size] + bytes(size % 2)
            value = moved
        copied.append(Entry(tag, kind, count, value))
    return _directory(order, sorted(copied)) + content

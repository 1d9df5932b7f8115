"""Read image file directories (IFD): the lists of tags in TIFF files and EXIF blocks (TIFF 6.0, section 2)."""

import mmap
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

Data: TypeAlias = bytes | bytearray | mmap.mmap
Order = Literal["<", ">"]

PREFIX = b"Exif\0\0"  # before an EXIF block in some formats
# First bytes of TIFF files and EXIF blocks -> byte order for struct. The last two are wrong, but Pillow reads them.
ORDERS: dict[bytes, Order] = {b"II*\0": "<", b"MM\0*": ">", b"II\0*": "<", b"MM*\0": ">"}
HEADER, ENTRY = 8, 12  # bytes before the first directory of an EXIF block, and of an entry
ORIENTATION, EXIF_IFD, GPS_IFD, INTEROPERABILITY, MAKER_NOTE = 0x0112, 0x8769, 0x8825, 0xA005, 0x927C
SHORT, LONG = 3, 4
INTEGERS = {SHORT: "H", LONG: "I"}  # types -> formats of struct


class BrokenDirectory(ValueError):
    """A directory that cannot be read."""


class Entry(NamedTuple):
    """A tag of a directory; `content` has its `number` values, or the offset of longer ones."""

    tag: int
    kind: int
    number: int
    content: bytes


def first_directory(data: Data) -> tuple[Order, int]:
    """Byte order and offset of the first directory.

    Raises:
        BrokenDirectory: this is no EXIF block and no TIFF, or a BigTIFF.
    """
    order = ORDERS.get(bytes(data[:4]))
    if order is None or len(data) < HEADER:
        raise BrokenDirectory("no classic TIFF header")
    return order, struct.unpack_from(f"{order}I", data, 4)[0]


def entries(data: Data, order: str, offset: int) -> list[Entry]:
    """The tags of the directory at an offset.

    Raises:
        BrokenDirectory: it ends after the data.
    """
    try:
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        places = range(offset + 2, offset + 2 + ENTRY * count, ENTRY)
        return [Entry(*struct.unpack_from(f"{order}HHI4s", data, place)) for place in places]
    except struct.error as error:
        raise BrokenDirectory(str(error)) from error


def integers(data: Data, order: str, offset: int) -> Iterator[tuple[int, int, int]]:
    """The single integers of a directory: the position of the entry, its tag, and the value.

    Raises:
        BrokenDirectory: as `entries`.
    """
    for number, (tag, kind, count, content) in enumerate(entries(data, order, offset)):
        if count == 1 and kind in INTEGERS:
            yield offset + 2 + ENTRY * number, tag, struct.unpack_from(f"{order}{INTEGERS[kind]}", content)[0]

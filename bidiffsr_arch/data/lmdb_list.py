"""``meta_info.txt``, the list of images in an LMDB of BasicSR, with one line for each image.

``0001.png (480,320,3) 1`` stands for the key ``0001``, height 480, width 320, 3 channels, and PNG's compression level.
"""

import os
import re
from pathlib import Path

META = "meta_info.txt"
SHAPE = re.compile(r"\((?P<height>\d+), ?(?P<width>\d+), ?\d+\)[^()]*$")  # names may have parentheses, too


def list_path(database: str | Path) -> Path:
    """The list's path."""
    return Path(os.path.expanduser(database)) / META


def is_database(folder: str) -> bool:
    """Whether BasicSR can read a folder as an LMDB: it is named ``*.lmdb`` and contains the list."""
    return folder.endswith(".lmdb") and list_path(folder).is_file()


def line_of(key: str, shape: tuple[int, int, int]) -> str:
    """The line of an image of this height, width and number of channels."""
    return f"{key}.png ({','.join(map(str, shape))}) 1\n"


def key_of(line: str) -> str:
    """The key of a line's image."""
    return line.split(".")[0]


def lines_in(database: str | Path) -> list[str]:
    """The lines of a database's list, with line breaks; none if there is no list."""
    path = list_path(database)
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def complete_lines_in(database: str | Path) -> list[str]:
    """`lines_in` without a last line that an interrupted process left incomplete."""
    return [line for line in lines_in(database) if line.endswith("\n")]


def complete_keys_in(database: str | Path) -> set[str]:
    """The keys of `complete_lines_in`."""
    return {key_of(line) for line in complete_lines_in(database)}


def repaired_list(database: str | Path) -> Path:
    """Remove an incomplete last line from the list, which is created if missing; returns its path."""
    path = list_path(database)
    path.write_text("".join(complete_lines_in(database)), encoding="utf-8")
    return path


def sizes_in(database: str | Path) -> dict[str, tuple[int, int]]:
    """Width and height of each image in a database by its key."""
    shapes = {key_of(line): SHAPE.search(line) for line in lines_in(database)}
    return {key: (int(shape["width"]), int(shape["height"])) for key, shape in shapes.items() if shape}

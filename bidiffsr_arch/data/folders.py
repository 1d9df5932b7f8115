"""The images of a folder; hidden files are ignored, all other files are counted."""

import os
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".avif")
"""Suffixes of image files that OpenCV, and therefore BasicSR's data sets, can decode."""


@dataclass
class Contents:
    """Contents of a folder.

    Attributes:
        images: paths of images, recognised by their suffixes, in order of their names.
        others: number of other files by suffix or kind.
        folders: number of subfolders that were not entered.
    """

    images: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    folders: int = 0

    def left_out(self) -> str:
        """The ignored contents, such as `2 .heic, 1 .db, 3 folders`; empty if there are none."""
        counts = [*self.others.most_common(), ("folder" if self.folders == 1 else "folders", self.folders)]
        return ", ".join(f"{count} {kind}" for kind, count in counts if count)


def scan(
    folder: Path, suffixes: Collection[str] = SUFFIXES, recursive: bool = False, leave_out: Path | None = None
) -> Contents:
    """List a folder.

    Hidden entries are ignored: names that begin with a dot, such as macOS's ``._NAME`` files.

    Args:
        suffixes: suffixes of images, in lower case.
        recursive: include subfolders; symbolic links to folders are not followed, but counted.
        leave_out: a subfolder to skip, such as that of the results.
    Raises:
        OSError: a folder cannot be read.
    """
    contents = Contents()
    for place, folders, names in os.walk(folder, onerror=_fail):
        visible = sorted(name for name in folders if not name.startswith("."))
        if recursive:
            contents.folders += sum(Path(place, name).is_symlink() for name in visible)
            folders[:] = [name for name in visible if leave_out is None or not _is_same(Path(place, name), leave_out)]
        else:
            contents.folders += len(visible)
            folders.clear()
        for name in sorted(names):
            path = Path(place, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if not path.is_file():
                contents.others["special file" if path.exists() else "broken link"] += 1
            elif suffix in suffixes:
                contents.images.append(path)
            else:
                contents.others[suffix or "without suffix"] += 1
    contents.images.sort()
    return contents


def _fail(error: OSError) -> None:
    raise error


class LeftOut(UserWarning):
    """A folder contains other files than images."""


def images_in(folder: Path) -> dict[str, Path]:
    """The images of a folder by name without suffix, sorted; a `LeftOut` warning names other contents.

    Raises:
        InputError: there are none, or two with the same name.
    """
    contents = scan(folder)
    found = {path.stem: path for path in contents.images}
    if not found or len(found) < len(contents.images):
        what = "got none" if not found else "got two of one name"
        raise InputError(f"expected a folder of images with different names, {what} in {folder}")
    if left_out := contents.left_out():
        warnings.warn(f"left out of {folder}: {left_out}", LeftOut, stacklevel=2)
    return found


def image_shape(path: Path) -> tuple[int, int, int]:
    """Height, width and number of channels of an image, from its header if Pillow can read it.

    Raises:
        InputError: it is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width, len(image.getbands())
    except Exception:  # Pillow may fail on metadata that OpenCV, which decodes the pixels, ignores
        height, width, channels = read_image(path).shape
        return height, width, channels


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)

"""Which pictures are enlarged, and to where: everything that can be known to go wrong, before the hours are spent."""

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale.photo import FORMATS, photo_size

SUFFIXES = ", ".join(FORMATS)


@dataclass(frozen=True)
class Job:
    """One picture to enlarge: the file, where the result goes, and the picture's size in pixels."""

    source: Path
    target: Path
    height: int
    width: int


def plan(inputs: Iterable[str], folder: str, overwrite: bool = False) -> tuple[list[Job], list[Path]]:
    """What is to be done; nothing is written.

    Args:
        inputs: pictures, and folders whose pictures are all taken (not those of folders in them).
        folder: where results go, under the pictures' names.
        overwrite: results that exist are made again.
    Returns:
        The jobs, in order of their names, and the results that exist and stay.
    Raises:
        InputError: no such file, not a picture, a folder without pictures, two pictures of one name, or a result that
            would take its picture's place.
    """
    sources = list(dict.fromkeys(source for entry in inputs for source in pictures_of(Path(entry).expanduser())))
    names = Counter(source.name for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"expected different names for one output folder, got {twice[0]} twice; run them apart")
    output = Path(folder).expanduser()
    jobs, kept = [], []
    for source in sources:
        target = output / source.name
        if target.exists() and target.samefile(source):
            raise InputError(f"expected another folder than the pictures' own, got -o {folder}: {source} would be lost")
        height, width = photo_size(source)
        if target.exists() and not overwrite:
            kept.append(target)
        else:
            jobs.append(Job(source, target, height, width))
    return jobs, kept


def pictures_of(entry: Path) -> list[Path]:
    """The picture, or those in the folder, in order of their names.

    Raises:
        InputError: there is none.
    """
    if entry.is_dir():
        found = sorted(path for path in entry.iterdir() if path.suffix.lower() in FORMATS and path.is_file())
        if not found:
            raise InputError(f"expected pictures ({SUFFIXES}) in the folder {entry}, found none")
        return found
    if not entry.exists():
        raise InputError(f"expected a picture or a folder at {entry}, found no such file")
    if entry.suffix.lower() not in FORMATS:
        raise InputError(f"expected a picture with a name in {SUFFIXES}, got {entry}; convert or rename it")
    return [entry]


def prepare_folder(folder: str) -> None:
    """Make the output folder, and see that it can be written to.

    Raises:
        InputError: it cannot.
    """
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise InputError(f"expected a folder that can be written to, got -o {folder} ({reason})") from error

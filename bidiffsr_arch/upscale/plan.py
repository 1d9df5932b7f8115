"""Plan which images are upscaled to which files, and find errors before the computation starts."""

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bidiffsr_arch.data.folders import Contents, scan
from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.upscale.formats import FORMATS, SUFFIXES, check_size, format_of
from bidiffsr_arch.upscale.photo import photo_size


@dataclass(frozen=True)
class Job:
    """One image to upscale: its file, the result's file, and the image's size in pixels."""

    source: Path
    target: Path
    height: int
    width: int


@dataclass
class Plan:
    """A plan of `basicsr upscale`.

    Attributes:
        jobs: images to upscale, in order of their names.
        kept: existing results, which are kept.
        failures: an error for each image that cannot be upscaled; each names its file.
        left_out: other contents of the folders, see `Contents.left_out`.
    """

    jobs: list[Job] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failures: list[InputError] = field(default_factory=list)
    left_out: str = ""

    def refuse_too_large(self, scale: int) -> None:
        """Turn jobs whose results are too large for their formats into failures."""
        fitting = []
        for job in self.jobs:
            try:
                check_size(job.target, job.height * scale, job.width * scale)
                fitting.append(job)
            except InputError as error:
                self.failures.append(InputError(f"{job.source}: {error}"))
        self.jobs = fitting


def plan(inputs: Iterable[str], folder: str, overwrite: bool = False, recursive: bool = False) -> Plan:
    """Make a plan; nothing is written.

    Args:
        inputs: images, and folders of images.
        folder: folder of the results, which get the images' names.
        overwrite: replace existing results.
        recursive: include subfolders; results keep their tree.
    Raises:
        InputError: there is no such file, it is not an image, a folder has no images, two images have the same name, or
            a result would replace its image.
    """
    output = Path(os.path.expanduser(folder))
    targets: dict[Path, Path] = {}
    contents = Contents()
    for entry in (Path(os.path.expanduser(name)) for name in inputs):
        found = _find(entry, recursive, output)
        contents.others += found.others
        contents.folders += found.folders
        targets |= {image: image.relative_to(entry) if entry.is_dir() else Path(image.name) for image in found.images}
    twice = [target for target, count in Counter(targets.values()).items() if count > 1]
    if twice:
        raise InputError(
            f"expected different names for one output folder, got {twice[0]} twice; use one output folder for each"
        )
    planned = Plan(left_out=contents.left_out())
    for source, name in targets.items():
        _add(planned, source, output / name, overwrite)
    if planned.failures and not planned.jobs and not planned.kept:
        raise_all(planned.failures)
    return planned


def _add(planned: Plan, source: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and target.samefile(source):
        raise InputError(f"expected -o to differ from the folder of the images, got it: {source} would be lost")
    if target.is_dir():
        planned.failures.append(InputError(f"expected {target} to be free for the result of {source}, got a folder"))
        return
    if target.exists() and not overwrite:
        planned.kept.append(target)
        return
    try:
        planned.jobs.append(Job(source, target, *photo_size(source)))
    except InputError as error:
        planned.failures.append(error)


def images_of(entry: Path) -> list[Path]:
    """The image, or the images of a folder in order of their names.

    Raises:
        InputError: there is none.
    """
    return _find(entry).images


def _find(entry: Path, recursive: bool = False, output: Path | None = None) -> Contents:
    if entry.is_dir():
        contents = scan(entry, FORMATS, recursive, leave_out=output)
        if not contents.images:
            beside = f", but {contents.left_out()}" if contents.left_out() else ""
            raise InputError(f"expected images ({SUFFIXES}) in the folder {entry}, found none{beside}")
        return contents
    if not entry.is_file():
        found = "a special file" if entry.exists() else "no such file"
        raise InputError(f"expected an image or a folder at {entry}, found {found}")
    format_of(entry)
    return Contents([entry])


def prepare_folder(folder: str) -> None:
    """Create the output folder if it is missing, and check that it can be written to.

    Raises:
        InputError: it cannot be created or written to.
    """
    path = Path(os.path.expanduser(folder))
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise InputError(f"expected a folder that can be written to, got -o {folder} ({reason})") from error

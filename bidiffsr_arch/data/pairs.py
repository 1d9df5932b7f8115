"""Pairs of pictures to train on, made from photographs: HR, and LR as MATLAB's bicubic imresize makes it."""

from collections.abc import Collection, Iterator, Sequence
from math import lcm
from pathlib import Path

import numpy as np
from PIL import Image

from bidiffsr_arch.data.parallel import in_processes
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.data.subimages import pictures_in
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_picture, write_picture


def pair_of(image: np.ndarray, name: str, scales: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    """HR, as it is, and LR at each scale, with their places: ``HR/{name}.png``, ``LR_bicubic/X{s}/{name}x{s}.png``.

    Args:
        image: BGR uint8 (H, W, 3); H and W multiples of every scale.
    """
    yield Path("HR", f"{name}.png"), image
    for scale in scales:
        yield Path("LR_bicubic", f"X{scale}", f"{name}x{scale}.png"), imresize(image, 1 / scale)


def cropped(image: np.ndarray, multiple: int) -> np.ndarray:
    """Without the rows and columns at the bottom and right that exceed a multiple."""
    height, width = (side // multiple * multiple for side in image.shape[:2])
    return image[:height, :width]


def write_pairs(
    sources: Sequence[Path], output: Path, scales: Sequence[int] = (2, 4), reduce: int = 1, workers: int = 1
) -> int:
    """Write HR and LR pictures of photographs; files that are there from an earlier run are kept.

    Args:
        sources: pictures, and folders whose pictures are all taken.
        output: folder for HR/ and LR_bicubic/.
        scales: HR's sides in units of LR's, each from 2 on.
        reduce: HR is the photograph made this many times smaller, which removes the traces of JPEG and of the sensor's
            colour filter.
        workers: processes at the same time.
    Returns:
        Number of pairs that the output now has of these sources.
    Raises:
        InputError: no such picture, two of one name, one that is too small, one whose name there has other pixels, or
            impossible numbers.
    """
    if reduce < 1 or not scales or min(scales) < 2:
        raise InputError(f"expected scales from 2 on and reduce from 1 on, got {list(scales)} and {reduce}")
    found = [source for entry in sources for source in (pictures_in(entry).values() if entry.is_dir() else [entry])]
    names = {source.stem.casefold() for source in found}  # some file systems do not tell cases apart
    if len(names) < len(found):
        raise InputError(f"expected photographs of different names, got {len(found) - len(names)} names twice")
    multiple = lcm(*scales)
    for source in found:
        _check_size(source, reduce * multiple)
    in_processes(_write_pair, [(source, output, set(scales), reduce) for source in found], workers, "Pairs")
    return len(found)


def _check_size(source: Path, least: int) -> None:
    try:
        with Image.open(source) as picture:
            size = picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"expected a picture at {source}, got none: {error}") from error
    if min(size) < least:
        raise InputError(f"expected a picture of at least {least} x {least} pixels, got {source} of {size}")


def _write_pair(source: Path, output: Path, scales: Collection[int], reduce: int) -> None:
    image = read_picture(source)
    if reduce > 1:
        image = imresize(cropped(image, reduce), 1 / reduce)
    image = cropped(image, lcm(*scales))
    for path, picture in pair_of(image, source.stem, sorted(scales)):
        there = output / path
        if there.exists() and picture is image and not np.array_equal(read_picture(there), image):
            raise InputError(f"expected nothing in {there}, or what {source} gives, got another picture; move it away")
        if not there.exists():
            write_picture(there, picture)

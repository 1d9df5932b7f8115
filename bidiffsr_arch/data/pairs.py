"""Pairs of pictures to train on, made from photographs: HR, and LR as MATLAB's bicubic imresize makes it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from math import lcm
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bidiffsr_arch.data.files import read_picture, write_picture
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.data.subimages import pictures_in
from bidiffsr_arch.errors import InputError


def pair_of(image: np.ndarray, name: str, scales: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    """HR, as it is, and LR at each scale, with their places: ``HR/{name}.png``, ``LR_bicubic/X{s}/{name}x{s}.png``.

    Args:
        image: BGR uint8 (H, W, 3); H and W multiples of every scale.
    """
    yield places(name, ())[0], image
    for path, scale in zip(places(name, scales)[1:], scales, strict=True):
        yield path, imresize(image, 1 / scale)


def places(name: str, scales: Sequence[int]) -> list[Path]:
    """Where a pair's files lie below its folder: HR first, then LR at each scale."""
    return [Path("HR", f"{name}.png"), *(Path("LR_bicubic", f"X{scale}", f"{name}x{scale}.png") for scale in scales)]


def cropped(image: np.ndarray, multiple: int) -> np.ndarray:
    """Without the rows and columns at the bottom and right that exceed a multiple."""
    height, width = (side // multiple * multiple for side in image.shape[:2])
    return image[:height, :width]


def write_pairs(
    sources: Sequence[Path], output: Path, scales: Sequence[int] = (2, 4), reduce: int = 1, workers: int = 1
) -> int:
    """Write HR and LR pictures of photographs; what is there from an earlier run is kept.

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
        InputError: no such picture, two of one name, one that is too small, one that is there in another size, or
            impossible numbers.
    """
    if reduce < 1 or not scales or min(scales) < 2:
        raise InputError(f"expected scales from 2 on and reduce from 1 on, got {list(scales)} and {reduce}")
    found = [source for entry in sources for source in (pictures_in(entry).values() if entry.is_dir() else [entry])]
    by_name = {source.stem: source for source in found}
    if len(by_name) < len(found):
        raise InputError(f"expected photographs of different names, got {len(found) - len(by_name)} names twice")
    for source in found:
        _check_sizes(source, output, reduce, lcm(*scales))
    with ProcessPoolExecutor(workers) as pool:
        write = partial(_write_pair, output=output, scales=tuple(scales), reduce=reduce)
        jobs = [pool.submit(write, source) for source in found]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="Pairs", unit="picture"):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(found)


def _check_sizes(source: Path, output: Path, reduce: int, multiple: int) -> None:
    """Refuse a photograph too small for a pair, and one of which there is a pair that was made in another way."""
    size = _size(source)
    width, height = (side // reduce // multiple * multiple for side in size)
    if not width or not height:
        least = reduce * multiple
        raise InputError(f"expected a picture of at least {least} x {least} pixels, got {source} of {size}")
    earlier = output / places(source.stem, ())[0]
    if earlier.exists() and _size(earlier) != (width, height):
        raise InputError(
            f"expected {width} x {height} pixels or nothing in {earlier}, got {_size(earlier)}; choose another folder"
        )


def _size(path: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError as error:
        raise InputError(f"expected a picture at {path}, got none: {error}") from error


def _write_pair(source: Path, output: Path, scales: Sequence[int], reduce: int) -> None:
    if all((output / path).exists() for path in places(source.stem, scales)):
        return
    image = read_picture(source)
    if reduce > 1:
        image = imresize(cropped(image, reduce), 1 / reduce)
    for path, picture in pair_of(cropped(image, lcm(*scales)), source.stem, scales):
        write_picture(output / path, picture)

"""Pairs of images to train on, made from photographs: HR, and LR as MATLAB's bicubic imresize makes it, or the same
with the artefacts of JPEG."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from math import lcm
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bidiffsr_arch.data.folders import image_shape, images_in
from bidiffsr_arch.data.parallel import in_processes
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_image


class Making(NamedTuple):
    """How pairs are made of a photograph.

    Attributes:
        scales: HR's sides in units of LR's, each from 2 on.
        reduce: HR is the photograph made this many times smaller, which removes the traces of JPEG and of the sensor's
            colour filter.
        jpeg: lowest and highest quality, 1..100, of the JPEG that LR goes through; None leaves LR as it is.
    """

    scales: Sequence[int] = (2, 4)
    reduce: int = 1
    jpeg: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise InputError for impossible numbers."""
        if self.reduce < 1 or not self.scales or min(self.scales) < 2:
            raise InputError(
                f"expected scales from 2 on and reduce from 1 on, got {list(self.scales)} and {self.reduce}"
            )
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise InputError(f"expected JPEG qualities from 1 to 100, the lower one first, got {list(self.jpeg)}")


def pair_of(image: np.ndarray, name: str, making: Making) -> Iterator[tuple[Path, np.ndarray]]:
    """HR, as it is, and LR at each scale, with their places: ``HR/{name}.png``, ``LR_bicubic/X{s}/{name}x{s}.png``, or
    LR_jpeg in place of LR_bicubic.

    Args:
        image: BGR uint8 (H, W, 3); H and W multiples of every scale.
    """
    yield Path("HR", f"{name}.png"), image
    for scale in sorted(set(making.scales)):
        low, file = imresize(image, 1 / scale), f"{name}x{scale}.png"
        if making.jpeg is None:
            yield Path("LR_bicubic", f"X{scale}", file), low
        else:
            yield Path("LR_jpeg", f"X{scale}", file), through_jpeg(low, quality_of(file, *making.jpeg))


def quality_of(file: str, lowest: int, highest: int) -> int:
    """A quality between the two, all alike, which depends on the file's name and nothing else."""
    return lowest + int.from_bytes(sha256(file.encode()).digest()[:8], "big") % (highest - lowest + 1)


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """What is left of an image, BGR uint8 (H, W, 3), in a JPEG file of this quality with colours at half the resolution
    (4:2:0), as cameras and web pages have it."""
    halved = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *halved])
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def cropped(image: np.ndarray, multiple: int) -> np.ndarray:
    """Without the rows and columns at the bottom and right that exceed a multiple."""
    height, width = (side // multiple * multiple for side in image.shape[:2])
    return image[:height, :width]


def write_pairs(sources: Sequence[Path], output: Path, making: Making | None = None, workers: int = 1) -> int:
    """Write HR and LR images of photographs; files that are there from an earlier run are kept.

    Args:
        sources: images, and folders whose images are all taken.
        output: folder for HR/ and LR_bicubic/ or LR_jpeg/.
        making: the defaults of `Making` if None.
        workers: processes at the same time.
    Returns:
        Number of pairs that the output now has of these sources.
    Raises:
        InputError: two images of one name or impossible numbers (nothing is written then); images that cannot be
            read, are too small, or whose names there have other pixels (the others are done).
    """
    making = making or Making()
    making.check()
    found = [source for entry in sources for source in (images_in(entry).values() if entry.is_dir() else [entry])]
    names = {source.stem.casefold() for source in found}  # some file systems do not tell cases apart
    if len(names) < len(found):
        raise InputError(f"expected photographs of different names, got {len(found) - len(names)} names twice")
    failures = {source: error for source in found if (error := _fault(source, making.reduce * lcm(*making.scales)))}
    jobs = [(source, output, making) for source in found if source not in failures]
    in_processes(_write_pair, jobs, workers, "Pairs", list(failures.values()))
    return len(found)


def _fault(source: Path, least: int) -> InputError | None:
    """What is wrong with a photograph, as far as its header tells."""
    try:
        height, width, _ = image_shape(source)
    except InputError as error:
        return error
    if min(height, width) >= least:
        return None
    return InputError(f"expected an image of at least {least} x {least} pixels, got {source} of {width} x {height}")


def _write_pair(source: Path, output: Path, making: Making) -> None:
    image = read_image(source)
    if making.reduce > 1:
        image = imresize(cropped(image, making.reduce), 1 / making.reduce)
    image = cropped(image, lcm(*making.scales))
    for path, each in pair_of(image, source.stem, making):
        there = output / path
        telling = each is image or making.jpeg is not None  # what other options would have made differently
        if there.exists() and telling and not np.array_equal(read_image(there), each):
            raise InputError(f"expected nothing in {there}, or what {source} gives, got another image; move it away")
        if not there.exists():
            write_image(there, each)

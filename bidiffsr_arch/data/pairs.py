"""Training pairs made from photographs: HR, and LR by MATLAB's bicubic imresize, optionally with JPEG artefacts."""

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


class PairSettings(NamedTuple):
    """Settings for making pairs from a photograph.

    Attributes:
        scales: scale factors of HR to LR, each at least 2.
        reduce: factor by which the photograph is downsampled to HR, which removes artefacts of JPEG and of demosaicing.
        jpeg: lowest and highest JPEG quality, 1..100, with which LR is compressed; None for no compression.
    """

    scales: Sequence[int] = (2, 4)
    reduce: int = 1
    jpeg: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise InputError for impossible settings."""
        if self.reduce < 1 or not self.scales or min(self.scales) < 2:
            raise InputError(
                f"expected scales of 2 or more and reduce of 1 or more, got {list(self.scales)} and {self.reduce}"
            )
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise InputError(f"expected JPEG qualities from 1 to 100, the lower one first, got {list(self.jpeg)}")


def pair_of(image: np.ndarray, name: str, settings: PairSettings) -> Iterator[tuple[Path, np.ndarray]]:
    """HR and, for each scale, LR, with their paths: ``HR/{name}.png`` and ``LR_bicubic/X{s}/{name}x{s}.png``, or
    LR_jpeg instead of LR_bicubic.

    Args:
        image: BGR uint8 (H, W, 3); H and W multiples of every scale.
    """
    yield Path("HR", f"{name}.png"), image
    for scale in sorted(set(settings.scales)):
        low, file = imresize(image, 1 / scale), f"{name}x{scale}.png"
        if settings.jpeg is None:
            yield Path("LR_bicubic", f"X{scale}", file), low
        else:
            yield Path("LR_jpeg", f"X{scale}", file), through_jpeg(low, quality_of(file, *settings.jpeg))


def quality_of(file: str, lowest: int, highest: int) -> int:
    """A uniformly distributed quality between the two that depends on the file's name only."""
    return lowest + int.from_bytes(sha256(file.encode()).digest()[:8], "big") % (highest - lowest + 1)


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image, BGR uint8 (H, W, 3), as JPEG of this quality with chroma subsampling 4:2:0, as is common in
    cameras and on web pages, and decode it."""
    halved = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *halved])
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def cropped(image: np.ndarray, multiple: int) -> np.ndarray:
    """Crop at the bottom and right to multiples of `multiple`."""
    height, width = (side // multiple * multiple for side in image.shape[:2])
    return image[:height, :width]


def write_pairs(sources: Sequence[Path], output: Path, settings: PairSettings | None = None, workers: int = 1) -> int:
    """Write HR and LR images of photographs; files of an earlier run are kept.

    Args:
        sources: images, and folders of images.
        output: folder for HR/ and LR_bicubic/ or LR_jpeg/.
        settings: the defaults of `PairSettings` if None.
        workers: number of processes.
    Returns:
        Number of pairs of these sources in the output.
    Raises:
        InputError: two images of one name or impossible settings (then nothing is written); or images that cannot be
            read, are too small, or whose files in the output have other pixels (all others are done).
    """
    settings = settings or PairSettings()
    settings.check()
    found = [source for entry in sources for source in (images_in(entry).values() if entry.is_dir() else [entry])]
    names = {source.stem.casefold() for source in found}  # some file systems ignore case
    if len(names) < len(found):
        raise InputError(f"expected photographs of different names, got {len(found) - len(names)} names twice")
    failures = {source: error for source in found if (error := _fault(source, settings.reduce * lcm(*settings.scales)))}
    jobs = [(source, output, settings) for source in found if source not in failures]
    in_processes(_write_pair, jobs, workers, "Pairs", list(failures.values()))
    return len(found)


def _fault(source: Path, least: int) -> InputError | None:
    """A defect of a photograph that its header shows; None if there is none."""
    try:
        height, width, _ = image_shape(source)
    except InputError as error:
        return error
    if min(height, width) >= least:
        return None
    return InputError(f"expected an image of at least {least} x {least} pixels, got {source} of {width} x {height}")


def _write_pair(source: Path, output: Path, settings: PairSettings) -> None:
    image = read_image(source)
    if settings.reduce > 1:
        image = imresize(cropped(image, settings.reduce), 1 / settings.reduce)
    image = cropped(image, lcm(*settings.scales))
    for path, each in pair_of(image, source.stem, settings):
        there = output / path
        telling = each is image or settings.jpeg is not None  # files whose pixels depend on all options
        if there.exists() and telling and not np.array_equal(read_image(there), each):
            raise InputError(f"expected {there} to be made from {source} or missing, got another file; move it away")
        if not there.exists():
            write_image(there, each)

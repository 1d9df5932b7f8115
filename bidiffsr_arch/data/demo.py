"""The demo's data set: photographs that lie inside scikit-image's wheel, so that nothing is downloaded."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bidiffsr_arch.data.pairs import Making, cropped, pair_of
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_picture, write_picture

# By skimage.data's docstrings, in the public domain or CC0 (for motorcycle_left, an image of the Middlebury 2014
# stereo benchmark, they name no licence). Left out: drawings, gray images, medical ones, and motorcycle_right,
# which shows the same again.
PHOTOGRAPHS = {
    "train": ("astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
CROP = 24  # HR sides are cropped to a multiple of this, whatever scales are asked for; every scale has to divide it


def write_demo(root: Path | str, scales: Sequence[int] = (2, 4), overwrite: bool = False) -> list[Path]:
    """Write the demo's HR images and their MATLAB-exact bicubic LR ones.

    The files are `{train,val}/HR/{name}.png` and `{train,val}/LR_bicubic/X{scale}/{name}x{scale}.png`, as in the
    benchmark sets.

    Args:
        root: folder to write to, usually datasets/demo; made where it is missing.
        scales: each a divisor of 24.
        overwrite: replace files that hold other pixels; without it nothing at all is written if there is one.

    Returns:
        The files written; none if all were there already with the same pixels.

    Raises:
        InputError: a scale that cannot be had, a file in the way, or a scikit-image without its images.
    """
    unknown = [scale for scale in scales if scale < 2 or CROP % scale]
    if unknown or not scales:
        raise InputError(f"expected scales out of 2, 3, 4, 6, 8, 12, 24, got {unknown or 'none'}")
    root = Path(root)
    total = sum(map(len, PHOTOGRAPHS.values())) * (1 + len(scales))
    images = dict(tqdm(_images(root, scales), desc="demo images", total=total, unit="file"))
    differing = {path: image for path, image in images.items() if not _holds(path, image)}
    in_the_way = [path for path in differing if path.exists()]
    if in_the_way and not overwrite:
        raise InputError(
            f"expected the demo's own images or none in {root}, got {len(in_the_way)} other, first {in_the_way[0]}; "
            "choose another folder, or replace them with --overwrite"
        )
    for path, image in differing.items():
        write_picture(path, image)
    return list(differing)


def _images(root: Path, scales: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    for split, names in PHOTOGRAPHS.items():
        for name in names:
            # Read as a file: skimage.data's own functions would download what is missing.
            image = cropped(read_picture(Path(str(files("skimage") / "data" / name))), CROP)
            for path, each in pair_of(image, Path(name).stem, Making(scales)):
                yield root / split / path, each


def _holds(path: Path, image: np.ndarray) -> bool:
    """Whether the file's pixels are these; its bytes depend on the version of libpng."""
    try:
        return np.array_equal(read_picture(path), image)
    except InputError:
        return False

"""The demo's data set: photographs that come with scikit-image, so nothing is downloaded."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bidiffsr_arch.data.pairs import PairSettings, cropped, pair_of
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_image

# According to skimage.data's docstrings, in the public domain or CC0 (for motorcycle_left, from the Middlebury 2014
# stereo benchmark, they name no licence). Not used: drawings, gray and medical images, and motorcycle_right, which is
# nearly the same.
PHOTOGRAPHS = {
    "train": ("astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
CROP = 24  # HR sides are cropped to multiples of this, for all scales; every scale must divide it


def write_demo(root: Path | str, scales: Sequence[int] = (2, 4), overwrite: bool = False) -> list[Path]:
    """Write the demo's HR images and their MATLAB-exact bicubic LR ones.

    The files are `{train,val}/HR/{name}.png` and `{train,val}/LR_bicubic/X{scale}/{name}x{scale}.png`, as in the
    benchmark sets.

    Args:
        root: folder to write to, usually datasets/demo; created if missing.
        scales: each a divisor of 24.
        overwrite: replace files with other pixels; if false and there is one, nothing is written.

    Returns:
        The files written; none if all existed with the same pixels.

    Raises:
        InputError: an unsupported scale, an existing file with other pixels, or a scikit-image without its images.
    """
    unknown = [scale for scale in scales if scale < 2 or CROP % scale]
    if unknown or not scales:
        raise InputError(f"expected scales among 2, 3, 4, 6, 8, 12, 24, got {unknown or 'none'}")
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
        write_image(path, image)
    return list(differing)


def _images(root: Path, scales: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    for split, names in PHOTOGRAPHS.items():
        for name in names:
            # Read from disk, since skimage.data's functions would download a missing file.
            image = cropped(read_image(Path(str(files("skimage") / "data" / name))), CROP)
            for path, each in pair_of(image, Path(name).stem, PairSettings(scales)):
                yield root / split / path, each


def _holds(path: Path, image: np.ndarray) -> bool:
    """Whether the file has these pixels; its bytes depend on the version of libpng."""
    try:
        return np.array_equal(read_image(path), image)
    except InputError:
        return False

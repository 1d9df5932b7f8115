"""Cut large training images into overlapping subimages, which a data loader reads many times faster."""

import json
from dataclasses import asdict
from pathlib import Path

from bidiffsr_arch.data.cut import Cut
from bidiffsr_arch.data.folders import image_shape, images_in
from bidiffsr_arch.data.parallel import in_processes
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_bytes, write_image

RECORD = "subimages.json"


def write_subimages(hr: Path, lr: Path, output: Path, cut: Cut, workers: int = 1) -> int:
    """Cut pairs of images; subimages from an earlier run are kept.

    Files: ``output/HR/{name}_s001.png`` and ``output/LR_bicubic/X{scale}/{name}_s001x{scale}.png``.

    Args:
        hr: folder of the images.
        lr: folder of the same images, `scale` times smaller, named ``{name}x{scale}`` or ``{name}``.
        workers: number of processes.
    Returns:
        Number of pairs of subimages in the output.
    Raises:
        InputError: an image has no partner, or the output was cut with other settings (then nothing is written); or
            images cannot be read or have wrong sizes (all others are cut).
    """
    small = images_in(lr)
    pairs = []
    for name, path in images_in(hr).items():
        partner = small.get(f"{name}x{cut.scale}") or small.get(name)
        if partner is None:
            raise InputError(f"expected {name}x{cut.scale} or {name} in {lr} for {path}, found neither")
        pairs.append((name, path, partner))
    _record(output / RECORD, {"hr": str(hr), "lr": str(lr), **asdict(cut)})
    return sum(in_processes(_cut_pair, [(*pair, output, cut) for pair in pairs], workers, "Cut"))


def _record(path: Path, how: dict) -> None:
    """Store the settings of an output; refuse settings that differ from the stored ones."""
    try:
        before = json.loads(path.read_text()) if path.exists() else how
    except ValueError:
        raise InputError(f"expected JSON of an earlier run in {path}, got other content; remove it") from None
    if before != how:
        raise InputError(f"expected {path.parent} to be cut as {before}, got {how}; choose another folder")
    write_bytes(path, (json.dumps(how, indent=1) + "\n").encode())


def _cut_pair(name: str, hr: Path, lr: Path, output: Path, cut: Cut) -> int:
    """Cut one pair; returns the number of its subimages. Sizes are read from headers, so existing ones cost little."""
    (height, width, _), (low_height, low_width, _) = image_shape(hr), image_shape(lr)
    if (height, width) != (low_height * cut.scale, low_width * cut.scale):
        raise InputError(
            f"expected {hr} to be {cut.scale} times {lr}, got {width}x{height} and {low_width}x{low_height}"
        )
    folders = (output / "HR", output / "LR_bicubic" / f"X{cut.scale}")
    squares = list(cut.squares(width, height))
    for source, folder, ending, scale in ((hr, folders[0], "", 1), (lr, folders[1], f"x{cut.scale}", cut.scale)):
        missing = [square for square in squares if not (folder / f"{name}{square[0]}{ending}.png").exists()]
        if not missing:
            continue
        image = read_image(source)
        for number, top, left in missing:
            top, left, size = top // scale, left // scale, cut.size // scale
            write_image(folder / f"{name}{number}{ending}.png", image[top : top + size, left : left + size])
    return len(squares)

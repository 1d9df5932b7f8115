"""Pack a folder of images into an LMDB of the kind that BasicSR's data sets read with ``io_backend: lmdb``.

BasicSR's own `make_lmdb_from_imgs` decodes and encodes every image and starts over when it was stopped; here files go
in as they are, and a second run goes on where the first one stopped.
"""

import os
from itertools import islice
from pathlib import Path

import lmdb
from tqdm import tqdm

from bidiffsr_arch.data.folders import image_shape, images_in
from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.files import is_truncated

META = "meta_info.txt"
AT_ONCE = 200  # images a transaction; as many at most are lost when a run is stopped
PAGE = 4096


def write_lmdb(folder: Path, output: Path, suffix: str = "") -> int:
    """Write ``output`` with the images of a folder, each under its name without ending and suffix.

    Args:
        output: a folder, by BasicSR's rule named ``*.lmdb``; until it is complete, it is called ``*.lmdb.part``.
        suffix: what LR's names have more than HR's, such as ``x4``: in a pair of LMDBs both keys are the same.
    Returns:
        Number of images in it.
    Raises:
        InputError: names that BasicSR cannot read, or an output that holds other images, or files that are no images
            (all others are packed; without the bad ones, or with good ones, a second run completes the output).
    """
    if output.suffix != ".lmdb":
        raise InputError(f"expected an output that ends in .lmdb, got {output}")
    files = {_key(name, suffix): path for name, path in images_in(folder).items()}
    if output.exists():
        if _keys(output) != set(files):
            raise InputError(f"expected {output} to hold the images of {folder}, got others; choose another name")
        return len(files)
    part = output.with_name(f"{output.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    done = _keys(part)
    if done - set(files):
        raise InputError(f"expected {part} to be of the images of {folder}, got others; remove it to start over")
    _fill(part, {key: path for key, path in files.items() if key not in done}, files)
    os.replace(part, output)
    return len(files)


def _key(name: str, suffix: str) -> str:
    if not name.endswith(suffix):
        raise InputError(f"expected every name to end in {suffix!r}, got {name}")
    key = name.removesuffix(suffix)
    if not key or not key.isascii() or set(key) & set(". "):
        raise InputError(f"expected names of ASCII characters without dots and spaces, as BasicSR reads, got {name!r}")
    return key


def _keys(database: Path) -> set[str]:
    """What BasicSR would find in a database: the keys of its list's whole lines."""
    meta = database / META
    lines = meta.read_text().splitlines(keepends=True) if meta.exists() else []
    return {line.split(".")[0] for line in lines if line.endswith("\n")}


def _fill(database: Path, missing: dict[str, Path], files: dict[str, Path]) -> None:
    """Put files into a database; an image is listed after it is safely in.

    Raises:
        InputError: files that are no images; all others are in then.
    """
    room = sum(path.stat().st_size + 4 * PAGE for path in files.values()) * 2
    meta = database / META
    lines = meta.read_text().splitlines(keepends=True) if meta.exists() else []
    meta.write_text("".join(line for line in lines if line.endswith("\n")))
    left, failures = iter(missing.items()), []
    with lmdb.open(str(database), map_size=room) as environment, meta.open("a") as listed:
        bar = tqdm(total=len(files), initial=len(files) - len(missing), desc="Pack", unit="image")
        while batch := list(islice(left, AT_ONCE)):
            lines = []
            with environment.begin(write=True) as transaction:
                for key, path in batch:
                    bar.update()
                    try:
                        height, width, channels = image_shape(path)
                        transaction.put(key.encode(), _whole_content(path))
                        lines.append(f"{key}.png ({height},{width},{channels}) 1\n")
                    except InputError as error:
                        failures.append(error)
            listed.writelines(lines)
            listed.flush()
        bar.close()
    raise_all(failures)


def _whole_content(path: Path) -> bytes:
    content = path.read_bytes()
    if is_truncated(content):
        raise InputError(f"expected a whole image, got {path}, which lacks its end; replace it")
    return content

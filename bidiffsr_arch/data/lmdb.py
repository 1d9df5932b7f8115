"""Pack a folder of pictures into an LMDB of the kind that BasicSR's data sets read with ``io_backend: lmdb``.

BasicSR's own `make_lmdb_from_imgs` decodes and encodes every picture and starts over when it was stopped; here files go
in as they are, and a second run goes on where the first one stopped.
"""

import os
from itertools import islice
from pathlib import Path

import lmdb
from PIL import Image
from tqdm import tqdm

from bidiffsr_arch.data.subimages import pictures_in
from bidiffsr_arch.errors import InputError

META = "meta_info.txt"
AT_ONCE = 200  # pictures a transaction; as many at most are lost when a run is stopped
PAGE = 4096


def write_lmdb(folder: Path, output: Path, suffix: str = "") -> int:
    """Write ``output`` with the pictures of a folder, each under its name without ending and suffix.

    Args:
        output: a folder, by BasicSR's rule named ``*.lmdb``; until it is complete, it is called ``*.lmdb.part``.
        suffix: what LR's names have more than HR's, such as ``x4``: in a pair of LMDBs both keys are the same.
    Returns:
        Number of pictures in it.
    Raises:
        InputError: names that BasicSR cannot read, or an output that holds other pictures.
    """
    if output.suffix != ".lmdb":
        raise InputError(f"expected an output that ends in .lmdb, got {output}")
    files = {_key(name, suffix): path for name, path in pictures_in(folder).items()}
    if output.exists():
        if _keys(output) != set(files):
            raise InputError(f"expected {output} to hold the pictures of {folder}, got others; choose another name")
        return len(files)
    part = output.with_name(f"{output.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    done = _keys(part)
    if done - set(files):
        raise InputError(f"expected {part} to be of the pictures of {folder}, got others; remove it to start over")
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
    """Put files into a database; a picture is listed after it is safely in."""
    room = sum(path.stat().st_size + 4 * PAGE for path in files.values()) * 2
    meta = database / META
    lines = meta.read_text().splitlines(keepends=True) if meta.exists() else []
    meta.write_text("".join(line for line in lines if line.endswith("\n")))
    left = iter(missing.items())
    with lmdb.open(str(database), map_size=room) as environment, meta.open("a") as listed:
        bar = tqdm(total=len(files), initial=len(files) - len(missing), desc="Pack", unit="picture")
        while batch := list(islice(left, AT_ONCE)):
            lines = []
            with environment.begin(write=True) as transaction:
                for key, path in batch:
                    transaction.put(key.encode(), path.read_bytes())
                    lines.append(f"{key}.png {_shape(path)} 1\n")
                    bar.update()
            listed.writelines(lines)
            listed.flush()
        bar.close()


def _shape(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            return f"({picture.height},{picture.width},{len(picture.getbands())})"
    except OSError:
        raise InputError(f"expected a picture, got {path}, which does not open as one") from None

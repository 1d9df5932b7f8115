"""Pack a folder of images into an LMDB that BasicSR's data sets read with ``io_backend: lmdb``.

BasicSR's `make_lmdb_from_imgs` decodes and encodes every image, and starts over after an interruption. Here files are
stored unchanged, and a second run continues.
"""

import os
from itertools import islice
from pathlib import Path

import lmdb
from tqdm import tqdm

from bidiffsr_arch.data.folders import image_shape, images_in
from bidiffsr_arch.data.lmdb_list import complete_keys_in, line_of, repaired_list
from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.files import is_truncated

AT_ONCE = 200  # images per transaction; an interruption loses at most these
PAGE = 4096


def write_lmdb(folder: Path, output: Path, suffix: str = "") -> int:
    """Write the images of a folder to ``output``, with their names, without extension and suffix, as keys.

    Args:
        output: a folder, which BasicSR requires to be named ``*.lmdb``; it is named ``*.lmdb.part`` until complete.
        suffix: suffix that LR names have and HR names do not, such as ``x4``; keys of a pair are equal without it.
    Returns:
        Number of images in the output.
    Raises:
        InputError: names that BasicSR cannot read, an output with other images, or files that are not images (all
            others are packed; once these are replaced, a second run completes the output).
    """
    if output.suffix != ".lmdb":
        raise InputError(f"expected an output that ends in .lmdb, got {output}")
    files = {_key(name, suffix): path for name, path in images_in(folder).items()}
    if output.exists():
        if complete_keys_in(output) != set(files):
            raise InputError(f"expected {output} to contain the images of {folder}, got others; choose another name")
        return len(files)
    part = output.with_name(f"{output.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    done = complete_keys_in(part)
    if done - set(files):
        raise InputError(f"expected {part} to contain images of {folder}, got others; remove it to start over")
    _fill(part, {key: path for key, path in files.items() if key not in done}, files)
    os.replace(part, output)
    return len(files)


def _key(name: str, suffix: str) -> str:
    if not name.endswith(suffix):
        raise InputError(f"expected every name to end in {suffix!r}, got {name}")
    key = name.removesuffix(suffix)
    if not key or not key.isascii() or set(key) & set(". "):
        raise InputError(f"expected names of ASCII characters without dots and spaces for BasicSR, got {name!r}")
    return key


def _fill(database: Path, missing: dict[str, Path], files: dict[str, Path]) -> None:
    """Store files in a database; each image is listed after its transaction.

    Raises:
        InputError: some files are not images; all others are stored.
    """
    map_size = sum(path.stat().st_size + 4 * PAGE for path in files.values()) * 2
    meta = repaired_list(database)
    left, failures = iter(missing.items()), []
    bar = tqdm(total=len(files), initial=len(files) - len(missing), desc="Pack", unit="image")
    with bar, lmdb.open(str(database), map_size=map_size) as environment, meta.open("a") as listed:
        while batch := list(islice(left, AT_ONCE)):
            lines = []
            with environment.begin(write=True) as transaction:
                for key, path in batch:
                    bar.update()
                    try:
                        line = line_of(key, image_shape(path))
                        transaction.put(key.encode(), _whole_content(path))
                        lines.append(line)
                    except InputError as error:
                        failures.append(error)
            listed.writelines(lines)
            listed.flush()
    raise_all(failures)


def _whole_content(path: Path) -> bytes:
    content = path.read_bytes()
    if is_truncated(content):
        raise InputError(f"expected a complete image, got {path}, which is truncated; replace it")
    return content

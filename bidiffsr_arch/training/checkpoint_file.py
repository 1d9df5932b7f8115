"""Checkpoints on disk: written so that nobody ever meets half of one, and recognised by their digest."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from bidiffsr_arch.errors import InputError

# One name for all files of a folder, so that kills in mid-write leave one such file behind and not a growing pile.
UNFINISHED = ".unfinished"
BLOCK = 1 << 20


def digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def save_whole(content: Any, path: Path | str) -> str:
    """`torch.save` under a temporary name in the same folder, flushed to the disk, then renamed.

    At any time, a kill included, `path` is absent, the old file, or all of the new one.

    Returns:
        The file's SHA-256.
    Raises:
        InputError: it cannot be written (disk full, no permission, no folder); what was there before is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        found = digest(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer meets a full disk with a RuntimeError of its own
        reason = getattr(error.__context__ or error, "strerror", None) or str(error).splitlines()[0]
        _forget(temporary)
        raise InputError(
            f"{path} cannot be written ({reason}); the last good checkpoint is unchanged. Make room, or set "
            "path: experiments_root to a folder that can be written, and go on with --auto_resume"
        ) from error
    return found


def _flush_folder(folder: Path) -> None:
    """Make a rename outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the folder may be what cannot be written
        return

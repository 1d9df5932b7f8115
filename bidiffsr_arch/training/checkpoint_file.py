"""Checkpoint files: written atomically, and identified by their SHA-256."""

import errno
import time
from pathlib import Path
from typing import Any

import torch

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import UNFINISHED, digest, whole_file

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ABANDONED = 3600.0  # seconds after the last write to an unfinished file, when its process must have ended


def save_checkpoint(content: Any, path: Path | str) -> str:
    """`torch.save` through `whole_file`.

    Returns:
        The file's SHA-256.
    Raises:
        InputError: it cannot be written (disk full, no permission, no folder); an existing file is unchanged.
    """
    path = Path(path)
    try:
        with whole_file(path) as file:
            torch.save(content, file)
        return digest(path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer replaces an OSError by a RuntimeError.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        advice = "make room" if cause.errno in NO_ROOM else "set path: experiments_root to a folder that can be written"
        raise InputError(
            f"{path} cannot be written ({cause.strerror or cause}); the last good checkpoint is unchanged: {advice}, "
            "and resume with --auto_resume"
        ) from error


def remove_abandoned(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder, unless they were written to in the last hour."""
    for file in folder.glob(f"{UNFINISHED}*"):
        try:
            if time.time() - file.stat().st_mtime > ABANDONED:
                file.unlink()
        except OSError:  # another process has removed it
            continue

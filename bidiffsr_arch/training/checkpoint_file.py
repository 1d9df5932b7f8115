"""Checkpoints on disk: written as a whole or not at all, and recognised by their digest."""

import errno
import time
from pathlib import Path
from typing import Any

import torch

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import UNFINISHED, digest, whole_file

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ABANDONED = 3600.0  # seconds since an unfinished file was last written to, after which its process must be gone


def save_checkpoint(content: Any, path: Path | str) -> str:
    """`torch.save` by `whole_file`.

    Returns:
        The file's SHA-256.
    Raises:
        InputError: it cannot be written (disk full, no permission, no folder); what was there before is unchanged.
    """
    path = Path(path)
    try:
        with whole_file(path) as file:
            torch.save(content, file)
        return digest(path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer meets an error of the file with a RuntimeError of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        advice = (
            "make room" if cause.errno in NO_ROOM else "set path: experiments_root to a folder that can be written"
        )
        raise InputError(
            f"{path} cannot be written ({cause.strerror or cause}); the last good checkpoint is unchanged: {advice}, "
            "and go on with --auto_resume"
        ) from error


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half written in a folder; what was written to in the last hour may belong to a
    running one."""
    for file in folder.glob(f"{UNFINISHED}*"):
        try:
            if time.time() - file.stat().st_mtime > ABANDONED:
                file.unlink()
        except OSError:  # another process was faster
            continue

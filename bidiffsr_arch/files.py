"""Picture files: read strictly, written so that nobody ever meets half of one."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
from basicsr.utils import FileClient, imfrombytes

from bidiffsr_arch.errors import InputError


def read_picture(path: Path | str) -> np.ndarray:
    """Read a picture as BGR uint8 of shape (H, W, 3).

    Raises:
        InputError: there is no such file, or it cannot be decoded.
    """
    if not Path(path).is_file():
        raise InputError(f"expected a picture at {path}, found no such file")
    return imfrombytes(FileClient("disk").get(path))


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a BGR uint8 picture as PNG, replacing what was there."""
    write_bytes(path, cv2.imencode(".png", image)[1].tobytes())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a temporary file beside it, then rename: at any time the old content or all of the new is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(path.name.encode()).hexdigest()[:16]  # the name itself may be as long as names may be
    temporary = path.with_name(f".unfinished-{digest}-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

"""Patches of the log and the images that a run writes, for disks that are full."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.utils import img_util
from basicsr.utils import logger as basicsr_logger

from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes


class WarningOnce:
    """What a handler does with a line that cannot be written: the first one is reported.

    Args:
        handler: of the log file.
    """

    def __init__(self, handler: logging.FileHandler) -> None:
        self.handler, self.is_reported = handler, False

    def __call__(self, record: logging.LogRecord) -> None:
        """Report the current exception."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.FileHandler.handleError(self.handler, record)
        elif not self.is_reported:
            self.is_reported = True
            reason = error.strerror or error
            print(f"warning: {self.handler.baseFilename} cannot be written ({reason}); it lacks lines", file=sys.stderr)


def full_log_disk() -> bool:
    """A log file on a full disk printed a traceback for every line: one warning says so, and the run goes on."""
    stock = basicsr_logger.get_root_logger
    if contains(stock, "handleError"):
        return False

    def get_root_logger(*args: Any, **options: Any) -> logging.Logger:
        logger = stock(*args, **options)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and not isinstance(handler.handleError, WarningOnce):
                handler.handleError = WarningOnce(handler)  # type: ignore[method-assign]
        return logger

    replace(stock, get_root_logger)
    return True


def whole_images() -> bool:
    """A failed write left half an image and an error without its name: images are written atomically, and the error
    names the file."""
    stock = img_util.imwrite
    if not contains(stock, "Failed in writing images"):
        return False

    def imwrite(img: np.ndarray, file_path: str, params: Sequence[int] | None = None, auto_mkdir: bool = True) -> bool:
        path = Path(file_path)
        try:
            content = cv2.imencode(path.suffix, img, params or [])[1]
            write_bytes(path, content.tobytes())
        except (OSError, cv2.error) as error:
            reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
            raise InputError(f"cannot write the image {path}: {reason}") from error
        return True

    replace(stock, imwrite)
    return True

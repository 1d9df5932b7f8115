"""A folder for each visitor, whose files are deleted after an hour."""

import os
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

KEEP = 3600.0  # seconds
COOKIE = "bidiffsr_visitor"


class Visitors:
    """Folders of visitors below one root.

    A visitor is identified by a cookie. The folder's name is a digest of the cookie's value, so the page can show paths
    without revealing the value.

    Args:
        root: parent of the visitors' folders; other files in it are deleted, too, when they are old.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, cookie: str) -> Path:
        """The folder of a visitor, created if missing."""
        folder = self._path(cookie)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _path(self, cookie: str) -> Path:
        return self.root / sha256(cookie.encode()).hexdigest()

    def owns(self, cookie: str, path: str) -> bool:
        """Whether a path is in the visitor's folder; links and ``..`` are resolved first."""
        try:
            return Path(path).resolve().is_relative_to(self._path(cookie))
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, a loop of links
            return False

    def sweep(self, keep: float = KEEP) -> None:
        """Delete files and empty folders that were last modified more than `keep` seconds ago."""
        latest = time.time() - keep
        for folder, names, files in os.walk(self.root, topdown=False):
            for path in (Path(folder, name) for name in files):
                with suppress(OSError):  # another thread may have deleted it
                    if path.lstat().st_mtime < latest:
                        path.unlink()
            for path in (Path(folder, name) for name in names):
                with suppress(OSError):  # or it is not empty
                    if path.lstat().st_mtime < latest:
                        path.rmdir()

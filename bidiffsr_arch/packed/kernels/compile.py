"""How kernels are compiled: in parallel, for this CPU, once a machine."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from numba import njit

OPTIONS = {"fastmath": {"contract"}, "boundscheck": False, "error_model": "numpy", "nogil": True}


def _sources() -> str:
    """Digest of all files that kernels are made from."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), folder.parent / "layout.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()
_dispatchers: list = []


def helper(function: Callable) -> Callable:
    """A function that kernels call."""
    return njit(inline="never", **OPTIONS)(function)


def kernel(function: Callable) -> Callable:
    """A function that Python calls: its `prange` loops run on Numba's threads and its machine code is kept on disk.

    Numba throws cached code away when the kernel's own file changes, but not when a helper's does: the digest of all of
    them is added to what it compares.
    """
    dispatcher = njit(parallel=True, cache=True, **OPTIONS)(function)
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, _SOURCES)
    _dispatchers.append(dispatcher)
    return dispatcher


class CompileNotice:
    """Says once, on stderr, that kernels are being compiled, the first time that one is called which is not on disk."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self) -> None:
        if self.done:
            return
        self.done = True
        cached = all(_on_disk(dispatcher) for dispatcher in _dispatchers)
        if not cached:
            print(
                "Compiling the packed network's kernels, once on this machine (up to a minute) ...",
                file=sys.stderr,
                flush=True,
            )


def _on_disk(dispatcher) -> bool:
    index = getattr(dispatcher._cache, "_cache_file", None)
    return index is not None and bool(index._load_index())


announce_compilation = CompileNotice()

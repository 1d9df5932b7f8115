"""How kernels are compiled: in parallel, for this CPU, once a machine."""

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numba
import torch
from numba import njit
from numba.core import event

OPTIONS = {"fastmath": {"contract"}, "boundscheck": False, "error_model": "numpy", "nogil": True}


def _sources() -> str:
    """Digest of all files that kernels are made from."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), folder.parent / "layout.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()


class _Notice(event.Listener):
    """Says once, on stderr, that a kernel is being compiled; one that is read from disk is not."""

    def __init__(self) -> None:
        self.kernels: set = set()

    def on_start(self, happening: event.Event) -> None:
        if happening.data["dispatcher"] in self.kernels:
            self.kernels.clear()
            print("Compiling 1-bit kernels, once on this machine ...", file=sys.stderr, flush=True)

    def on_end(self, happening: event.Event) -> None:
        """Nothing to say."""


_notice = _Notice()
event.register("numba:compile", _notice)


def helper(function: Callable) -> Callable:
    """A function that kernels call."""
    return njit(inline="never", no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)(function)


def kernel(function: Callable | None = None, *, parallel: bool = True) -> Callable:
    """A function that Python calls: its `prange` loops run on Numba's threads and its machine code is kept on disk.

    It must be no closure: Numba finds a closure's machine code on disk only by chance. Numba throws cached code away
    when the kernel's own file changes, but not when a helper's does: the digest of all of them is added to what it
    compares.
    """
    if function is None:
        return partial(kernel, parallel=parallel)
    dispatcher = njit(parallel=parallel, cache=True, no_cfunc_wrapper=True, **OPTIONS)(function)
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, _SOURCES)
    _notice.kernels.add(dispatcher)
    return dispatcher


def as_many_threads_as_torch() -> None:
    """Let kernels run on as many threads as torch's operations.

    Numba's first use of its threads sets OpenMP's number, which is torch's, too, to that of all cores: it is put back.
    """
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)

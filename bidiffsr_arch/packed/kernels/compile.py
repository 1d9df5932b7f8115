"""How kernels are compiled: for Numba's threads, for this CPU, once on a machine."""

import hashlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import torch
from numba import njit
from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from bidiffsr_arch.errors import InputError

OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "boundscheck": False, "error_model": "numpy", "nogil": True}
# Wrappers that nobody calls are not compiled; Numba's type hints lack these options.
FROM_PYTHON: dict[str, Any] = {"no_cfunc_wrapper": True}
FROM_KERNELS: dict[str, Any] = {"no_cfunc_wrapper": True, "no_cpython_wrapper": True}


def _sources() -> str:
    """Digest of all files that kernels are made from."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), folder.parent / "layout.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()


class _Notice(event.Listener):
    """Prints once, on stderr, that kernels are being compiled; those that are read from disk are not."""

    def __init__(self) -> None:
        self.kernels: set = set()

    def on_start(self, happening: event.Event) -> None:
        if happening.data["dispatcher"] in self.kernels:
            self.kernels.clear()
            print("Compiling 1-bit kernels, once on this machine ...", file=sys.stderr, flush=True)

    def on_end(self, happening: event.Event) -> None:
        """Nothing is printed."""


_notice = _Notice()
event.register("numba:compile", _notice)


class _LinkedCode(JITCodeLibrary):
    """Code of a helper. It is optimised and becomes machine code only as a part of the kernels that call it: Numba
    would do both for the helper, again for each helper that calls it, and again for the kernel.
    """

    def _optimize_final_module(self) -> None:
        """Left to the kernel."""

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Numba's null pointer: the code is in no memory from which it could be called."""
        return 0

    @property
    def codegen(self) -> Any:
        """Numba tells it the function's environment, which is that of Python objects: kernels use none."""
        return _NoEnvironment


class _NoEnvironment:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Not needed."""


class _HelperCompiler(Compiler):
    def __init__(self, typing_context: Any, target_context: Any, library: None, *rest: Any) -> None:
        super().__init__(typing_context, target_context, _LinkedCode(target_context.codegen(), "helper"), *rest)


class _KernelCode(JITCodeLibrary):
    """Code of a kernel, optimised twice: the second pass, a second of compilation in all, makes a step 1.5 % faster."""

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        super()._optimize_final_module()


class _KernelCompiler(Compiler):
    def __init__(self, typing_context: Any, target_context: Any, library: None, *rest: Any) -> None:
        code = _KernelCode(target_context.codegen(), "kernel")
        code.enable_object_caching()
        super().__init__(typing_context, target_context, code, *rest)


def helper(function: Callable) -> Callable:
    """A function that kernels call."""
    return njit(inline="never", pipeline_class=_HelperCompiler, **OPTIONS, **FROM_KERNELS)(function)


def kernel(function: Callable) -> Callable:
    """A function that Python calls: its machine code is kept on disk.

    It must not be a closure, whose machine code Numba does not reliably find on disk. Numba discards cached code when
    the kernel's own file changes, but not when a helper's does: the digest of all of them is added to what it compares.
    """
    dispatcher = njit(cache=True, pipeline_class=_KernelCompiler, **OPTIONS, **FROM_PYTHON)(function)
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, _SOURCES)
    _notice.kernels.add(dispatcher)
    return dispatcher


def as_many_threads_as_torch() -> int:
    """Let kernels run on as many threads as torch's operations; returns how many.

    Numba's first use of its threads sets OpenMP's number of threads, which torch shares, to that of all cores: torch's
    number is restored.

    Raises:
        InputError: this process was forked from one that has run kernels.
    """
    _refuse_fork()
    threads = torch.get_num_threads()
    config: Any = numba.config
    own = min(threads, config.NUMBA_NUM_THREADS)
    numba.set_num_threads(own)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return own


def threads_of_kernels() -> int:
    """How many threads kernels run on, in this thread of Python."""
    return numba.get_num_threads()


_first_process: int | None = None


def _refuse_fork() -> None:
    """Threads of GNU's OpenMP do not survive a fork: torch would wait for them for ever, and Numba ends the process.

    In a child torch is limited to one thread, which needs no others; Numba asks for them whatever their number.
    """
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
    pool = sys.modules.get("numba.np.ufunc.omppool")
    if _first_process != os.getpid() and getattr(pool, "openmp_vendor", None) == "GNU":
        raise InputError(
            "expected a packed network to run in a process of its own threads, got one forked from a process that has "
            "run one; start processes by multiprocessing's spawn or forkserver"
        )

"""Compile kernels with Numba for this CPU, once per machine, and choose their number of threads."""

import hashlib
import os
import sys
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import torch
from llvmlite.binding import Linkage
from numba import njit
from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from bidiffsr_arch.errors import InputError

OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "boundscheck": False, "error_model": "numpy", "nogil": True}
# Unused wrappers are not compiled; Numba's type hints lack these options.
FROM_PYTHON: dict[str, Any] = {"no_cfunc_wrapper": True}
FROM_KERNELS: dict[str, Any] = {"no_cfunc_wrapper": True, "no_cpython_wrapper": True}


def _sources() -> str:
    """Digest of the source files of all kernels."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), folder.parent / "layout.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()


class _Notice(event.Listener):
    """Prints once, on stderr, that kernels are being compiled; nothing is printed for kernels read from the cache."""

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
    """Code of a helper, which is optimised and compiled only as part of the kernels that call it. Numba would do both
    for the helper, for each helper that calls it, and for the kernel.
    """

    def _optimize_final_module(self) -> None:
        """Do nothing: the kernel's code is optimised as a whole."""

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """The null pointer: a helper has no machine code of its own."""
        return 0

    @property
    def codegen(self) -> Any:
        """Accepts the environment of Python objects that Numba sets; kernels use none."""
        return _NoEnvironment


class _NoEnvironment:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Not needed."""


class _HelperCompiler(Compiler):
    def __init__(self, typing_context: Any, target_context: Any, library: None, *rest: Any) -> None:
        super().__init__(typing_context, target_context, _LinkedCode(target_context.codegen(), "helper"), *rest)


class _KernelCode(JITCodeLibrary):
    """Code of a kernel, whose helpers get names that no other kernel has. Numba numbers symbols in each process, so
    that a kernel from the cache and one that was compiled here may have different helpers of the same name, of which
    the linker would take the first. (Internal functions would do, too, but LLVM inlines them, and compiling takes a
    third longer.)
    """

    def _optimize_final_module(self) -> None:
        unique = uuid.uuid4().hex
        for function in self._final_module.functions:
            if function.linkage == Linkage.linkonce_odr and not function.is_declaration:
                function.name = f"{function.name}.{unique}"
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
    """A function that Python calls; its machine code is cached on disk.

    It must not be a closure: Numba does not reliably find the machine code of closures on disk. Numba discards cached
    code when the kernel's own file changes, but not when a helper's file does, so the digest of all sources is added
    to its version, which it compares before it reads an index: that may name classes that only other sources have.
    """
    dispatcher = njit(cache=True, pipeline_class=_KernelCompiler, **OPTIONS, **FROM_PYTHON)(function)
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._version = (index._version, _SOURCES)
    _notice.kernels.add(dispatcher)
    return dispatcher


def as_many_threads_as_torch() -> int:
    """Let kernels run on as many threads as torch's operations; returns their number.

    When Numba first uses its threads, it sets OpenMP's number of threads, which torch shares, to the number of cores;
    torch's number is restored.

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
    """Number of threads that kernels called from this Python thread run on."""
    return numba.get_num_threads()


_first_process: int | None = None


def _refuse_fork() -> None:
    """Raise InputError in a child that was forked after kernels had run.

    Threads of GNU's OpenMP do not survive a fork: torch waits for them forever, and Numba aborts the process. In a
    child, torch is limited to one thread and waits for none; Numba uses its threads whatever their number.
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

"""Processes forked after kernels ran: GNU's OpenMP, which runs Numba's threads and torch's, does not survive a fork.

Its threads exist in the parent only. In the child a parallel torch operation waits for them for ever, and Numba's
OpenMP layer ends the process by SIGTERM. The child can avoid neither, so packed networks refuse to run there.
"""

import os

from bidiffsr_arch.errors import InputError

_kernels_ran = False
_refused = False


def _after_fork_in_child() -> None:
    global _refused
    _refused = _refused or (_kernels_ran and _threads_are_gnus())


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def check_process() -> None:
    """Raise InputError in a process that was forked after kernels ran, where they would hang."""
    if _refused:
        raise InputError(
            "expected 1-bit kernels in the process that first ran them or in one started by spawn, got one forked "
            "from it, in which they would hang; take multiprocessing.get_context('spawn')"
        )


def prepare_kernels() -> None:
    """Before kernels run: let them have as many threads as torch.

    Raises:
        InputError: see `check_process`.
    """
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch

    global _kernels_ran
    check_process()
    as_many_threads_as_torch()
    _kernels_ran = True


def _threads_are_gnus() -> bool:
    """Whether Numba's threads are those of GNU's OpenMP."""
    import numba

    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]

        return numba.threading_layer() == "omp" and omppool.openmp_vendor == "GNU"
    except (ImportError, ValueError):  # without that layer; before any thread was started
        return False

"""Limit the time for which OpenMP threads spin while they wait for each other.

A parallel loop ends when its last thread finishes; until then GNU's OpenMP lets the others spin for milliseconds.
If another program occupies the core of the last thread, they keep spinning instead of yielding their cores, and small
layers take hundreds of times as long. torch and Numba are therefore loaded with a shorter spin;
`benchmarks/shared_cores.py` measures the costs and gains. OpenMP reads its environment once, when it is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Module that loads OpenMP -> its name in `policies`.
LIBRARIES = {"torch": "torch", "numba.np.ufunc.omppool": "numba"}
VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "10000"
# Who sets OMP_NUM_THREADS has divided the cores among programs; on cores of its own a program loses by a short spin.
USERS_CHOICE = ("OMP_WAIT_POLICY", VARIABLE, "KMP_BLOCKTIME", "OMP_NUM_THREADS")

_policies: dict[str, str] = {}


@contextmanager
def waiting_policy(library: str) -> Iterator[None]:
    """Load `library` and its OpenMP with the short spin, unless the environment has one of `USERS_CHOICE`.

    Afterwards the variable is removed, so child processes inherit the user's environment.
    """
    chosen = _users_choice()
    if not chosen:
        os.environ[VARIABLE] = SPIN_COUNT
    try:
        yield
    finally:
        if not chosen:
            del os.environ[VARIABLE]
    _policies[library] = chosen or f"{VARIABLE}={SPIN_COUNT}, set by bidiffsr_arch"


def loaded_before(library: str) -> None:
    """Record that `library` loaded OpenMP before this package could set its spin."""
    advice = f"imported before bidiffsr_arch: threads spin; import it later, or set {VARIABLE}={SPIN_COUNT} yourself"
    _policies[library] = _users_choice() or advice


def _users_choice() -> str:
    chosen = [f"{name}={os.environ[name]}" for name in USERS_CHOICE if name in os.environ]
    return f"{', '.join(chosen)}, from the environment" if chosen else ""


def policies() -> list[tuple[str, str]]:
    """(library, how its threads wait) for each library that has loaded OpenMP."""
    return list(_policies.items())

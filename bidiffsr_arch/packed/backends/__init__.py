"""Three backends of packed inference with identical integer results; `protocol` defines their operations."""

import importlib.util
from typing import Any

from bidiffsr_arch.errors import InputError, install_extra
from bidiffsr_arch.packed.backends.protocol import Affine, Backend, GroupNorm, Map

__all__ = ["BACKENDS", "Affine", "AnyBackend", "Backend", "GroupNorm", "Map", "choose_backend"]

BACKENDS = ("numba-avx2", "numba-portable", "torch")

AnyBackend = Backend[Any, Any, Any]


def choose_backend(name: str | None = None) -> AnyBackend:
    """The backend of this name, or the fastest on this machine.

    Raises:
        InputError: no such backend, or it cannot run here.
    """
    if name is not None and name not in BACKENDS:
        raise InputError(f"expected backend to be one of {', '.join(BACKENDS)}, got {name!r}")
    present = importlib.util.find_spec("numba") is not None
    if name == "torch" or (name is None and not present):
        from bidiffsr_arch.packed.backends.torch_backend import TorchBackend

        return TorchBackend()
    if not present:
        raise InputError(
            f"expected Numba for backend {name}, which is not installed; use backend torch, or {install_extra('fast')}"
        )
    from bidiffsr_arch.packed.backends import numba_backend

    name = name or numba_backend.fastest()
    if name == "numba-avx2" and "avx2" not in numba_backend.FEATURES:
        raise InputError("expected a CPU with AVX2 for backend numba-avx2, found none; use backend numba-portable")
    return numba_backend.NumbaBackend(name)

"""Loads Numba without SciPy.

Numba imports SciPy's version and its BLAS, a fifth of a second, to know whether its own matrix products can call them.
Kernels have no matrix products of NumPy arrays.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Importing `package` fails within the context, unless it has been imported."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


if "numba.np.arraymath" not in sys.modules:
    with _hidden("scipy"):
        import numba.np.arraymath
    # What Numba notes there concerns np.convolve in other packages' functions: it is noted as Numba would have.
    numba.np.arraymath._HAVE_BLAS = importlib.util.find_spec("scipy") is not None

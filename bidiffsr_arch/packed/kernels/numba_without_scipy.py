"""Imports Numba without SciPy.

Numba imports SciPy, which takes a fifth of a second, to find out whether its matrix products can call SciPy's BLAS. The
kernels here multiply no NumPy matrices.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make imports of `package` fail within the context, unless it is already imported."""
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
    # Numba reads this flag for np.convolve in other packages' functions: it gets the value that Numba would have set.
    numba.np.arraymath._HAVE_BLAS = importlib.util.find_spec("scipy") is not None

"""Backends of packed inference that this machine can run."""

from importlib.util import find_spec

import pytest

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed import BACKENDS
from bidiffsr_arch.packed.backends import choose_backend


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend; one that cannot run here is skipped."""
    try:
        return choose_backend(request.param)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def needs_numba() -> None:
    if find_spec("numba") is None:
        pytest.skip("Numba is not installed")

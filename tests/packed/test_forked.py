"""A process forked after kernels ran gets an error instead of hanging on threads that do not exist."""

import os

import pytest
from child import run_code

FORK = """
import os, signal, numba, numpy, torch
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.backends import choose_backend
backend, image = choose_backend("numba-portable"), numpy.ones((8, 8, 16), numpy.float32)

def sums():
    backend.begin()
    return backend.sums(image).sum()

expected = sums()
child = os.fork()
if child == 0:
    signal.alarm(60)
    torch.nn.functional.conv2d(torch.rand(1, 64, 64, 64), torch.rand(64, 64, 3, 3))
    try:
        print(sums() == expected, flush=True)
    except InputError as error:
        print(error, flush=True)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert sums() == expected
print(status, numba.threading_layer())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_after_kernels_ran(needs_numba):
    done = run_code(FORK, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
    said, end = done.stdout.splitlines()
    status, layer = end.split()
    assert status == "0", done.stderr
    assert "one forked from a process that has run one" in said if layer == "omp" else said == "True"

"""First use: what is compiled, and what Numba loads."""

import os
import shutil

import pytest
from child import run_code

STEP = """
import torch
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.packed import pack
network = BIDiffSRUNet(inner_channel=8, norm_groups=4, channel_mults=[1, 2], res_blocks=1, image_size=16, fp_res=[16])
packed = pack(network.eval(), backend=sys.argv[1])
with torch.no_grad():
    packed(*torch.zeros(2, 1, 3, 16, 16), torch.zeros(1, dtype=torch.long))
"""
KERNELS = """
from bidiffsr_arch.packed.kernels import binary_conv, planes
for kernel in binary_conv.popcount_conv, binary_conv.lookup_conv, planes.count_planes:
    print(kernel.__name__, len(kernel.overloads))
"""
SCIPY = """
print("scipy" in sys.modules)
import scipy.linalg, numba.np.arraymath
print(numba.np.arraymath._HAVE_BLAS)
"""


@pytest.mark.parametrize(
    ("backend", "compiled"), [("numba-portable", {"popcount_conv"}), ("numba-avx2", {"lookup_conv"})]
)
def test_a_kernel_that_is_not_used_is_not_compiled(needs_numba, backend, compiled):
    """Each way of counting bits takes more than a second to compile."""
    result = run_code(STEP + KERNELS, backend, imported=("torch",))
    if "use backend numba-portable" in result.stderr:
        pytest.skip("this CPU has no AVX2")
    counts = dict(line.split() for line in result.stdout.splitlines())
    assert counts == {name: str(int(name in compiled)) for name in ("popcount_conv", "lookup_conv", "count_planes")}


def test_numba_loads_no_scipy_and_knows_of_it(needs_numba):
    pytest.importorskip("scipy")
    result = run_code(STEP + SCIPY, "numba-portable", imported=("torch",))
    assert result.stdout.split() == ["False", "True"], result.stderr


SIMILAR = '''
from bidiffsr_arch.packed.kernels.compile import helper, kernel


def polynomial(number):
    """A helper that is too long to be inlined."""
    @helper
    def sums(x):
        for i in range(x.size):
            {lines}
    return sums


first, second = polynomial(1.0), polynomial(2.0)


@kernel
def by_first(x):
    first(x)
    first(x)


@kernel
def by_second(x):
    second(x)
    second(x)
'''
CALLS = """
import numpy as np, similar
for name in sys.argv[1:]:
    x = np.zeros(3)
    getattr(similar, name)(x)
    print(name, x[0])
"""


def test_kernels_of_several_processes_keep_their_helpers(needs_numba, tmp_path, monkeypatch):
    """Helpers have the same symbol in both processes, and one kernel comes from the cache of the first."""
    lines = "\n            ".join(f"x[i] = (x[i] + number) * {1 + place / 64}" for place in range(64))
    (tmp_path / "similar.py").write_text(SIMILAR.format(lines=lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))

    def lines_of(*names: str) -> list[str]:
        return run_code(CALLS, *names, imported=("torch",)).stdout.splitlines()

    alone = {line for name in ("by_second", "by_first") for line in lines_of(name)}
    shutil.rmtree(tmp_path / "cache")
    lines_of("by_first")
    together = lines_of("by_second", "by_first")
    assert len(alone) == 2 and set(together) == alone


RENAMED = """
from typing import NamedTuple
import numpy as np
from bidiffsr_arch.packed.kernels import compile
compile._SOURCES = "{name}"


class {name}(NamedTuple):
    x: np.ndarray


@compile.kernel
def double(arguments):
    arguments.x[0] *= 2


x = np.ones(1)
double({name}(x))
print(x[0])
"""


def test_a_cache_may_name_classes_that_other_sources_had(needs_numba, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("Before", "After"):
        (tmp_path / "renamed.py").write_text(RENAMED.format(name=name))
        result = run_code("import renamed", imported=("torch",))
        assert result.stdout == "2.0\n", result.stderr

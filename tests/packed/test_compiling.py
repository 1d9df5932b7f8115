"""First use: what is compiled, and what Numba loads."""

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
    result = run_code(STEP + KERNELS, backend)
    if "use backend numba-portable" in result.stderr:
        pytest.skip("this CPU has no AVX2")
    counts = dict(line.split() for line in result.stdout.splitlines())
    assert counts == {name: str(int(name in compiled)) for name in ("popcount_conv", "lookup_conv", "count_planes")}


def test_numba_loads_no_scipy_and_knows_of_it(needs_numba):
    pytest.importorskip("scipy")
    result = run_code(STEP + SCIPY, "numba-portable")
    assert result.stdout.split() == ["False", "True"], result.stderr

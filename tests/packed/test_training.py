"""The forward pass of training by popcount: the same numbers as by `conv2d`, to the last bit."""

import importlib.util
import math
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.binary.conv import BinaryWeightConv2d
from bidiffsr_arch.binary.convolve import convolve
from bidiffsr_arch.models.stepping import Stepping
from bidiffsr_arch.packed.training import popcount_conv, train_on_bits

pytest.importorskip("numba")

SHAPES = st.tuples(
    st.integers(1, 3),  # pictures
    st.integers(1, 130),  # channels: up to three words of bits
    st.integers(1, 9),  # filters: up to three blocks of them
    st.integers(1, 40),  # height
    st.integers(1, 40),  # width: less than a vector, whole tiles, and what is left of them
    st.sampled_from([1, 3, 5]),
)


def problem(shape: tuple[int, ...], shifts: str, seed: int) -> dict[str, torch.Tensor | None]:
    batch, channels, filters, height, width, side = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (batch, channels, height, width), generator=generator).float()  # many exact zeros
    v = torch.randn(filters, channels, side, side, generator=generator)
    sets = {"none": 0, "one": 1, "each": batch}[shifts]
    return dict(
        x=x,
        shift=torch.randint(-1, 2, (sets, channels, 1, 1), generator=generator).float() if sets else None,
        v=v,
        bits=v >= 0,
        scale=torch.rand(1 if seed % 2 else filters, 1, 1, generator=generator),
    )


def result(x, shift, v, bits, scale, counter=None):
    """Of the convolution, which is also what can be had again for the backward pass."""
    names = dict(activation="clip", weight="clip", progress=torch.zeros(()))
    z, again = convolve(x, shift, v, bits, scale, **names, counter=counter)
    assert torch.equal(z, again.function(*again.arguments))
    return z


@settings(deadline=None)  # the first call compiles
@given(SHAPES, st.sampled_from(["none", "one", "each"]), st.integers(0, 2**16))
def test_results_are_those_of_conv2d(shape, shifts, seed):
    numbers = problem(shape, shifts, seed)
    assert torch.equal(result(**numbers), result(**numbers, counter=popcount_conv))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(2, 3),
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.expand(3, -1, -1, -1),
        lambda x: x.bfloat16(),
    ],
    ids=["transposed", "channels_last", "expanded", "bf16"],
)
def test_maps_may_lie_in_memory_as_they_like(change):
    numbers = problem((1, 20, 5, 9, 9, 3), "one", 0)
    expected = result(**numbers | {"x": change(numbers["x"]).float().contiguous()})
    assert torch.equal(expected, result(**numbers | {"x": change(numbers["x"])}, counter=popcount_conv))


def test_a_number_that_is_none_is_below_zero_as_in_torch():
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, -1e-45]).view(1, 6, 1, 1)
    numbers = dict(x=x, shift=None, v=torch.ones(6, 1, 1, 1).expand(6, 6, 1, 1), scale=torch.ones(1, 1, 1))
    numbers["bits"] = torch.eye(6).bool()[..., None, None]
    assert torch.equal(result(**numbers), result(**numbers, counter=popcount_conv))


def test_what_the_kernels_cannot_do_is_left_to_conv2d():
    def counter(*_):
        raise AssertionError("called")

    numbers = problem((1, 4, 2, 3, 3, 3), "none", 0)
    assert result(**numbers | {"x": numbers["x"].double()}, counter=counter).dtype is torch.float32
    x, v = torch.ones(1, 2**15, 1, 1), torch.ones(1, 2**15, 1, 1)
    assert result(x, None, v, v >= 0, torch.ones(1, 1, 1), counter=counter).item() == 2**15
    with torch.device("meta"):  # as networks are on whose operations are counted
        elsewhere = [torch.empty_like(tensor, device="meta") for tensor in (x, v, v)]
        convolve(
            elsewhere[0],
            None,
            elsewhere[1],
            elsewhere[2] >= 0,
            torch.ones(1, 1, 1),
            activation="clip",
            weight="clip",
            progress=torch.zeros(()),
            counter=counter,
        )


def test_operator_says_the_truth_about_itself():
    numbers = problem((2, 8, 4, 5, 6, 3), "each", 0)
    arguments = [numbers[name] for name in ("x", "shift", "bits", "scale")]
    torch.library.opcheck(popcount_conv, arguments)


def test_a_network_learns_the_same(tiny_network):
    by_counting = deepcopy(tiny_network)
    train_on_bits(by_counting)
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randn(2, 3, 16, 16, generator=generator) for _ in range(2)]
    results = [network(*pictures, torch.tensor([3, 80])) for network in (tiny_network, by_counting)]
    assert torch.equal(*results)
    for result in results:
        result.square().mean().backward()
    for one, other in zip(tiny_network.parameters(), by_counting.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def counters(network) -> set:
    return {module.counter for module in network.modules() if isinstance(module, BinaryWeightConv2d)}


def test_training_prepares_for_it(tiny_network, monkeypatch):
    cpu = torch.device("cpu")
    assert counters(tiny_network) == {None}
    Stepping({"channels_last": True}).prepare(tiny_network, cpu)  # the kernels read channel by channel
    Stepping({}).prepare(tiny_network, torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        Stepping({}).prepare(tiny_network, cpu)
    assert counters(tiny_network) == {None}
    Stepping({}).prepare(tiny_network, cpu)
    assert counters(tiny_network) == counters(deepcopy(tiny_network)) == {torch.ops.bidiffsr_arch.popcount_conv.default}


def test_kernels_leave_torchs_threads_as_they_are():
    """Numba's pool starts with a number of its own for all of OpenMP; seen in a new process, where none has started."""
    code = (
        "import torch; torch.set_num_threads(1); from bidiffsr_arch.packed.training import popcount_conv as conv; "
        "conv(torch.ones(1, 8, 4, 4), None, torch.ones(8, 8, 3, 3).bool(), torch.ones(1, 1, 1)); "
        "import numba; print(torch.get_num_threads(), numba.get_num_threads())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "1"]

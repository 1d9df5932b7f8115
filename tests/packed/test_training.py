"""The forward pass of training by popcount is bit-identical to that by `conv2d`."""

import math
import os
import pickle
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.binary.conv import BinaryWeightConv2d
from bidiffsr_arch.binary.convolve import convolve
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.packed.training import POPCOUNT, pack_signs, pack_weight, use_training_kernels
from bidiffsr_arch.training.objective import Objective
from bidiffsr_arch.training.stepping import Stepping

pytest.importorskip("numba")

ALWAYS = POPCOUNT._replace(min_macs=0)

SHAPES = st.tuples(
    st.integers(1, 3),  # images
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
        scale=torch.rand(1 if seed % 2 else filters, 1, 1, generator=generator),
    )


def convolved(x, shift, v, scale, backend=None):
    """z, checked against its recomputation."""
    bits = (v >= 0,) if backend is None else backend.pack_weight(v)
    names = dict(activation="clip", weight="clip", progress=torch.zeros(()))
    z, sums = convolve(x, shift, v, bits, scale, **names, backend=backend)
    assert sums.sums.dtype is (torch.int16 if v[0].numel() < 2**15 else torch.int32)
    assert torch.equal(z, sums.result())
    return z


def counted(x, shift, v, scale):
    """z by the kernels, called as a layer calls them."""
    assert ALWAYS.supports(x, shift, v)
    return convolved(x, shift, v, scale, ALWAYS)


@settings(deadline=None)  # the first call compiles
@given(SHAPES, st.sampled_from(["none", "one", "each"]), st.integers(0, 2**16))
def test_results_are_those_of_conv2d(shape, shifts, seed):
    numbers = problem(shape, shifts, seed)
    assert torch.equal(convolved(**numbers), counted(**numbers))


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
def test_maps_may_have_any_memory_layout(change):
    numbers = problem((1, 20, 5, 9, 9, 3), "one", 0)
    expected = convolved(**numbers | {"x": change(numbers["x"]).float().contiguous()})
    assert torch.equal(expected, counted(**numbers | {"x": change(numbers["x"])}))


def test_nan_is_minus_one_as_in_torch():
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, -1e-45]).view(1, 6, 1, 1)
    v = (2 * torch.eye(6) - 1)[..., None, None]
    numbers = dict(x=x, shift=None, v=v, scale=torch.ones(1, 1, 1))
    assert torch.equal(convolved(**numbers), counted(**numbers))


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n | {"x": n["x"].double()},
        lambda n: n | {"shift": n["shift"].double()},
        lambda n: {name: tensor.bfloat16() for name, tensor in n.items()},
        lambda n: {name: tensor.to("meta") for name, tensor in n.items()},  # as where operations are counted
    ],
    ids=["float64", "float64 shift", "a network in bfloat16", "meta"],
)
def test_unsupported_convolutions_use_conv2d(change):
    numbers = problem((1, 4, 2, 3, 3, 3), "one", 0)
    layer = BinaryWeightConv2d(4, 2, 3, "clip", "channel_mean")
    layer.backend = ALWAYS
    for counts, n in ((True, numbers), (False, change(numbers))):
        assert ALWAYS.supports(n["x"], n["shift"], n["v"]) is counts
        layer.weight = torch.nn.Parameter(n["v"])
        packed = []
        layer.backend = ALWAYS._replace(pack_weight=lambda v, packed=packed: packed.append(v) or pack_weight(v))
        z, _ = layer.to(n["x"].device)(n["x"], n["shift"])
        assert z.shape == (1, 2, 3, 3) and len(packed) == counts


def test_small_layers_use_conv2d():
    numbers = problem((1, 4, 2, 3, 3, 3), "one", 0)  # 3 * 3 pixels, 2 filters of 4 * 9 taps
    numbers.pop("scale")
    assert POPCOUNT._replace(min_macs=648).supports(**numbers)
    assert not POPCOUNT._replace(min_macs=649).supports(**numbers)


def test_filters_whose_counts_do_not_fit_use_conv2d():
    for taps, fits in ((2**15 - 1, True), (2**15, False)):
        x, v = torch.ones(1, taps, 1, 1), -torch.ones(1, taps, 1, 1)
        assert ALWAYS.supports(x, None, v) is fits
        assert convolved(x, None, v, torch.ones(1, 1, 1), ALWAYS if fits else None).item() == -taps


@pytest.mark.parametrize(
    ("shape", "shift", "weights"),
    [
        ((1, 20, 4, 4), None, (2, 16, 3, 3)),
        ((3, 20, 4, 4), (2, 20, 1, 1), (2, 20, 3, 3)),
        ((1, 20, 4, 4), (1, 1, 1, 1), (2, 20, 3, 3)),
        ((1, 20, 4, 0), None, (2, 20, 3, 3)),
        ((1, 20, 4, 4), None, (2, 20, 3, 1)),
    ],
    ids=["channels", "shifts", "a shift for all", "empty", "oblong"],
)
def test_shapes_that_do_not_fit_are_refused(shape, shift, weights):
    with pytest.raises(ValueError, match=r"expected .*, got \("):
        pack_signs(torch.ones(shape), None if shift is None else torch.ones(shift), torch.ones(weights))


def test_operators_pass_torchs_checks():
    numbers = problem((2, 8, 4, 5, 6, 3), "each", 0)
    packed, weight = pack_signs(numbers["x"], numbers["shift"], numbers["v"]), pack_weight(numbers["v"])
    torch.library.opcheck(torch.ops.bidiffsr_arch.count_signs.default, (packed, *weight))
    torch.library.opcheck(torch.ops.bidiffsr_arch.pack_weight.default, (numbers["v"],))
    torch.library.opcheck(torch.ops.bidiffsr_arch.pack_signs.default, (numbers["x"], numbers["shift"], numbers["v"]))


@pytest.mark.parametrize(
    "train",
    [{}, {"accumulate": 2}, {"checkpointing": True, "accumulate": 2}, {"amp": "fp16", "grad_clip": 1.0}],
    ids=["plain", "accumulate", "checkpointing", "amp"],
)
def test_a_network_learns_the_same(tiny_options, train):
    learnt = []
    for counting in (True, False):
        torch.manual_seed(0)
        network = BIDiffSRUNet(**tiny_options | {"dropout": 0.2})
        stepping = Stepping(Step(**train))
        stepping.prepare(network, torch.device("cpu"))
        assert backends(network) == {POPCOUNT}
        for layer in layers(network):
            layer.backend = ALWAYS if counting else None
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        images = [torch.randn(2, 3, 16, 16) for _ in range(3)]
        for _ in range(2):
            inputs = [*images[:2], torch.tensor([3, 80])]
            stepping.step(network, optimizer, Objective(torch.nn.functional.l1_loss), inputs, images[2])
        learnt.append([parameter.detach() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*learnt, strict=True))


def test_a_network_with_popcount_compiles_as_one_graph(tiny_options):
    torch.compiler.reset()
    network = always_by_popcount(BIDiffSRUNet(**tiny_options | dict(channel_mults=[1], image_size=32)))
    x, time = torch.rand(2, 3, 8, 8), torch.tensor([3, 97])
    gradients = []
    for compute in (network, torch.compile(network, backend="aot_eager", fullgraph=True)):
        network.zero_grad()
        compute(x, x, time).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):  # sums of float32 in another order
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def always_by_popcount(network):
    for layer in layers(network):
        layer.backend = ALWAYS
    return network


def test_weights_are_packed_once_per_step(tiny_network):
    packed = []

    def noted(v):
        packed.append(v.shape)
        return pack_weight(v)

    stepping = Stepping(Step(accumulate=2, checkpointing=True))  # two calls, each recomputed
    stepping.prepare(tiny_network, torch.device("cpu"))
    for layer in layers(tiny_network):
        layer.backend = ALWAYS._replace(pack_weight=noted)
    images = [torch.randn(2, 3, 16, 16) for _ in range(3)]
    optimizer = torch.optim.Adam(tiny_network.parameters())
    inputs = [*images[:2], torch.tensor([3, 80])]
    stepping.step(tiny_network, optimizer, Objective(torch.nn.functional.l1_loss), inputs, images[2])
    assert packed == [layer.weight.shape for layer in layers(tiny_network)]


def layers(network) -> list[BinaryWeightConv2d]:
    return [module for module in network.modules() if isinstance(module, BinaryWeightConv2d)]


def backends(network) -> set:
    return {layer.backend for layer in layers(network)}


def test_training_on_a_cpu_uses_popcount(tiny_network):
    Stepping(Step()).prepare(tiny_network, torch.device("cpu"))
    assert backends(tiny_network) == {POPCOUNT}
    assert backends(deepcopy(tiny_network)) == {POPCOUNT}
    pickle.dumps(tiny_network)  # to be sent to a spawned process


@pytest.mark.parametrize(("train", "device"), [({"channels_last": True}, "cpu"), ({}, "cuda")])
def test_training_on_other_devices_uses_conv2d(tiny_network, train, device):
    Stepping(Step(**train)).prepare(tiny_network, torch.device(device))
    assert backends(tiny_network) == {None}


def test_training_without_numba_uses_conv2d(tiny_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "bidiffsr_arch.packed.kernels.planes", None)
    use_training_kernels(tiny_network)
    assert backends(tiny_network) == {None}


def test_kernels_do_not_change_torchs_threads():
    """Numba's pool starts with a number of its own for all of OpenMP; seen in a new process, where none has started."""
    code = (
        "import torch; torch.set_num_threads(1); from bidiffsr_arch.packed.training import pack_signs; "
        "pack_signs(torch.ones(1, 8, 4, 4), None, torch.ones(8, 8, 3, 3)); "
        "import numba; print(torch.get_num_threads(), numba.get_num_threads())"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "1"]

"""Convolutions and gradients by Winograd agree with float64, and training with them is exact by seed."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.archs.blocks import NormSwishConv, PlainConv2d
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.binary.conv2d import conv2d, conv2d_gradients
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.packed import training_winograd
from bidiffsr_arch.packed.training import use_training_kernels
from bidiffsr_arch.packed.training_winograd import WINOGRAD, input_gradient, supports, weight_gradient
from bidiffsr_arch.training.stepping import Stepping

pytest.importorskip("numba")

# Root mean square error, relative to the result's. Direct convolution in float32 has about 2e-7 to 1e-6; the transforms
# multiply and divide by up to 24 in each direction, which costs one decimal digit (Lavin & Gray 2016, table 4).
RELATIVE = 2e-5

SHAPES = st.tuples(
    st.integers(1, 3),  # images
    st.sampled_from([32, 64, 96]),  # channels: up to three slices
    st.sampled_from([32, 64, 96, 160]),  # filters: up to two whole groups and part of one
    st.integers(1, 21),  # height: also less than a tile, and parts of tiles
    st.integers(1, 21) | st.sampled_from([128, 131, 150]),  # width: also one and two segments of a row of tiles
)


def always_by_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIN_MACS", "MIN_PIXELS"):
        monkeypatch.setattr(training_winograd, name, 0)


def problem(shape: tuple[int, ...], seed: int = 0, kind: str = "real") -> dict[str, torch.Tensor]:
    batch, channels, filters, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    numbers = dict(
        x=torch.randn(batch, channels, height, width, generator=generator),
        weight=torch.randn(filters, channels, 3, 3, generator=generator),
        bias=torch.randn(filters, generator=generator),
        grad=1e-3 * torch.randn(batch, filters, height, width, generator=generator),
    )
    return numbers | {name: numbers[name].sign() for name in ("x", "weight") if kind == "binary"}


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return ((result.double() - exact).norm() / exact.norm()).item()


@settings(deadline=None, max_examples=30)  # the first call compiles
@given(SHAPES, st.integers(0, 2**16), st.sampled_from(["real", "binary"]))
def test_results_and_gradients_agree_with_float64(shape, seed, kind):
    x, weight, bias, grad = problem(shape, seed, kind).values()
    wide = {name: tensor.double() for name, tensor in problem(shape, seed, kind).items()}
    exact_x, exact_weight = conv2d_gradients(wide["grad"], wide["x"], wide["weight"], (True, True))
    exact = F.conv2d(wide["x"], wide["weight"], wide["bias"], padding=1)
    assert error(WINOGRAD.convolve(x, weight, bias), exact) < RELATIVE
    assert error(WINOGRAD.convolve(x, weight, None), exact - wide["bias"][:, None, None]) < RELATIVE
    assert error(input_gradient(grad, weight), exact_x) < RELATIVE
    assert error(weight_gradient(grad, x), exact_weight) < RELATIVE


def test_a_map_of_zeros_convolves_to_zeros():
    x, weight, _, grad = problem((1, 32, 32, 9, 9)).values()
    assert not WINOGRAD.convolve(0 * x, weight, None).any()
    assert not weight_gradient(grad, 0 * x).any()


def test_values_that_are_not_finite_stay_in_their_sample_and_reach():
    x, weight, bias, _ = problem((2, 32, 32, 16, 16)).values()
    x[0, 3, 9, 9] = torch.nan
    result = WINOGRAD.convolve(x, weight, bias)
    assert result[0, :, 8:11, 8:11].isnan().all()
    assert result[0, :, :4].isfinite().all() and result[1].isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.transpose(-1, -2),
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t[:1].expand(len(t), -1, -1, -1),
    ],
    ids=["transposed", "channels_last", "expanded"],
)
def test_tensors_may_have_any_memory_layout(change):
    x, weight, bias, grad = problem((2, 32, 64, 12, 12)).values()
    changed = [change(tensor) for tensor in (x, weight, grad)]
    for compute, inputs in (
        (lambda x, weight, grad: WINOGRAD.convolve(x, weight, bias), changed),
        (lambda x, weight, grad: input_gradient(grad, weight), changed),
        (lambda x, weight, grad: weight_gradient(grad, x), changed),
    ):
        assert torch.equal(compute(*inputs), compute(*(tensor.contiguous() for tensor in inputs)))


def test_results_do_not_depend_on_the_number_of_threads():
    """In processes of their own: Numba's pool keeps the number of threads with which it started."""
    code = """
import hashlib
import torch
from bidiffsr_arch.packed import training_winograd as w
torch.manual_seed(0)
x, weight, grad = torch.randn(2, 32, 24, 40), torch.randn(96, 32, 3, 3), torch.randn(2, 96, 24, 40)
results = w.conv2d(x, weight), w.input_gradient(grad, weight), w.weight_gradient(grad, x)
print(*(hashlib.sha256(result.numpy()).hexdigest() for result in results))
"""
    printed = set()
    for threads in "12":
        environment = os.environ | {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        printed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1


def test_operators_pass_torchs_checks():
    x, weight, bias, grad = problem((1, 32, 64, 8, 8)).values()
    operators = torch.ops.bidiffsr_arch
    torch.library.opcheck(operators.winograd_conv2d.default, (x, weight, bias, False))
    torch.library.opcheck(operators.winograd_conv2d.default, (grad, weight, None, True))
    torch.library.opcheck(operators.winograd_weight_gradient.default, (grad, x))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x, w: (x, w), True),
        (lambda x, w: (x[..., :7], w), False),
        (lambda x, w: (x.double(), w.double()), False),
        (lambda x, w: (x.bfloat16(), w.bfloat16()), False),
        (lambda x, w: (x.to("meta"), w.to("meta")), False),
        (lambda x, w: (x, w[:, :, :1, :1]), False),
        (lambda x, w: (x[:, :16], w[:, :16]), False),
        (lambda x, w: (x, w[:16]), False),
    ],
    ids=["supported", "small", "float64", "bf16", "meta", "1x1", "channels", "filters"],
)
def test_other_convolutions_use_torch(monkeypatch, change, expected):
    always_by_winograd(monkeypatch)
    x, weight, _, _ = problem((1, 32, 32, 8, 8)).values()
    assert supports(*change(x, weight)) is expected


def test_small_convolutions_use_torch(monkeypatch):
    x, weight, _, _ = problem((1, 32, 32, 8, 8)).values()
    for name, least in (("MIN_MACS", 8 * 8 * weight.numel()), ("MIN_PIXELS", 8 * 8)):
        always_by_winograd(monkeypatch)
        monkeypatch.setattr(training_winograd, name, least)
        assert supports(x, weight)
        monkeypatch.setattr(training_winograd, name, least + 1)
        assert not supports(x, weight)


def layer_and_input(kind: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = {
        "1-bit": lambda: BinaryConv2d(32, 32, 3, BINARIZERS["bidiffsr"]),
        "real weights": lambda: BinaryConv2d(32, 32, 3, BINARIZERS["bidiffsr"], binarize="activations"),
        "full precision": lambda: PlainConv2d(32, 32, 3),
        "normalized": lambda: NormSwishConv(32, 32, 4),
    }[kind]()
    return layer, torch.randn(2, 32, 12, 12, requires_grad=True)


KINDS = ["1-bit", "real weights", "full precision", "normalized"]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_learn_with_winograd_as_without(monkeypatch, kind):
    always_by_winograd(monkeypatch)
    gradients = []
    for kernels in (True, False):
        layer, x = layer_and_input(kind)
        if kernels:
            use_training_kernels(layer)
            pickle.dumps(layer)  # to be sent to a spawned process
        layer(x).square().mean().backward()
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert error(one, other.double()) < RELATIVE
    assert any(not torch.equal(one, other) for one, other in zip(*gradients, strict=True))  # the kernels were used


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_layers_use_torch(monkeypatch, kind):
    """Validation during training gives the numbers of a test."""
    always_by_winograd(monkeypatch)
    layer, x = layer_and_input(kind)
    with torch.no_grad():
        before = layer(x)
        use_training_kernels(layer)
        assert torch.equal(layer(x), before)


def test_autocast_uses_torch(monkeypatch):
    always_by_winograd(monkeypatch)
    layer, x = layer_and_input("full precision")
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x, layer.weight, layer.bias, WINOGRAD).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_winograd_compile_as_one_graph(monkeypatch, kind):
    always_by_winograd(monkeypatch)
    torch.compiler.reset()
    layer, x = layer_and_input(kind)
    use_training_kernels(layer)
    gradients = []
    for compute in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        compute(x).square().mean().backward()
        gradients.append([p.grad for p in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)  # sums of float32 in another order


@pytest.mark.parametrize(("train", "device"), [({"channels_last": True}, "cpu"), ({}, "cuda")])
def test_training_elsewhere_uses_torch(tiny_network, train, device):
    Stepping(Step(**train)).prepare(tiny_network, torch.device(device))
    layers = [module for module in tiny_network.modules() if hasattr(module, "conv_backend")]
    assert layers and not any(layer.conv_backend for layer in layers)

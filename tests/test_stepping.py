"""Options of the training step: each trains, resumes, and has its effect."""

import importlib.util
from collections import Counter
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.archs.blocks import set_checkpointing
from bidiffsr_arch.archs.norm_swish import Dropout, NormSwish
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d, cached_weights
from bidiffsr_arch.binary.bank import TimestepRPReLU
from bidiffsr_arch.binary.conv import BinarizedWeight, BinaryWeightConv2d
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training import BIDiffSRModel, early_updates
from bidiffsr_arch.training.stepping import Stepping

COMPETITOR = dict(rescale="pixelshuffle", fusion="concat", tar=False, taa=False)


def build(options: dict[str, Any], **train: Any) -> BIDiffSRModel:
    options = deepcopy(options)
    options["train"] |= train
    torch.manual_seed(options["manual_seed"])
    return BIDiffSRModel(options)


def run(model: BIDiffSRModel, first: int, last: int, count: int = 2) -> list[float]:
    losses = []
    for iteration in range(first, last + 1):
        generator = torch.Generator().manual_seed(iteration)
        lq = torch.rand(count, 3, 8, 8, generator=generator)
        model.feed_data(dict(lq=lq, gt=torch.rand(count, 3, 16, 16, generator=generator)))
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_pix"])
    return losses


def weights(model: BIDiffSRModel) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.net_g.parameters()]


@pytest.fixture
def small_graphs(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a network of one level, which torch.compile traces as a whole and then runs as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.compiler.reset()
    options["network_g"].update(channel_mults=[1], fp_res=[])
    return options


SWITCHES = [
    {"amp": "bf16"},
    {"amp": "fp16"},
    {"compile": True},
    {"accumulate": 2},
    {"grad_clip": 0.01},
    {"checkpointing": True},
    {"channels_last": True},
    {"amp": "bf16", "accumulate": 2, "grad_clip": 1.0, "checkpointing": True, "channels_last": True},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: "+".join(switch))
def test_each_option_trains_close_to_none_resumes_exactly_and_saves_plain_names(switch, small_graphs, tmp_path):
    options = small_graphs
    plain = build(options)
    plain_losses = run(plain, 1, 4)
    whole = run(build(options, **switch), 1, 4)
    assert whole == pytest.approx(plain_losses, abs=0.02)  # of order 1; a bfloat16 has three digits

    first = build(options, **switch)
    assert run(first, 1, 2) == whole[:2]
    first.save(epoch=0, current_iter=2)
    saved = torch.load(tmp_path / "net_g_2.pth", weights_only=True)["params"]
    assert list(saved) == list(plain.net_g.state_dict()) and {t.dtype for t in saved.values()} == {torch.float32}

    options["path"]["pretrain_network_g"] = str(tmp_path / "net_g_2.pth")
    second = build(options, **switch)
    second.resume_training(torch.load(tmp_path / "2.state", weights_only=True))
    assert run(second, 3, 4) == whole[2:]
    second.test()
    assert second.output.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("switch", [s for s in SWITCHES if "compile" not in s], ids=lambda switch: "+".join(switch))
def test_each_option_may_be_switched_between_two_runs(switch, options, tmp_path):
    for before, after in (({}, switch), (switch, {})):
        first = build(options, **before)
        run(first, 1, 1)
        first.save(epoch=0, current_iter=1)
        second = build(
            options | {"path": options["path"] | {"pretrain_network_g": str(tmp_path / "net_g_1.pth")}}, **after
        )
        second.resume_training(torch.load(tmp_path / "1.state", weights_only=True))
        assert run(second, 2, 2) == pytest.approx(run(first, 2, 2), abs=0.02)


def test_the_scaler_of_fp16_is_resumed(options, tmp_path):
    first = build(options, amp="fp16")
    run(first, 1, 1)
    first.stepping.scaler.update(128.0)
    first.save(epoch=0, current_iter=1)
    second = build(options, amp="fp16")
    second.resume_training(torch.load(tmp_path / "1.state", weights_only=True))
    assert second.stepping.scaler.get_scale() == first.stepping.scaler.get_scale() == 128.0


def test_accumulation_gives_the_step_of_the_whole_batch(options):
    whole, parts = build(options), build(options, accumulate=4)
    losses = run(whole, 1, 1, count=4), run(parts, 1, 1, count=4)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    gradients = [[p.grad for p in model.net_g.parameters() if p.grad is not None] for model in (whole, parts)]
    for got, expected in zip(*gradients, strict=True):  # sums of float32 in another order
        assert (got - expected).norm() <= 1e-4 * expected.norm() + 1e-7


def test_weights_are_binarized_once_per_step(options, monkeypatch):
    calls = Counter()
    original = BinaryWeightConv2d.binarized

    def counted(self: BinaryWeightConv2d, *args: Any, **kwargs: Any) -> BinarizedWeight:
        calls[self] += 1
        return original(self, *args, **kwargs)

    model = build(options, accumulate=4, checkpointing=True)  # four calls, each recomputed in the backward pass
    monkeypatch.setattr(BinaryWeightConv2d, "binarized", counted)
    run(model, 1, 1, count=4)
    layers = [module for module in model.net_g.modules() if isinstance(module, BinaryWeightConv2d)]
    assert layers and calls == dict.fromkeys(layers, 1)


@pytest.mark.parametrize("at_least", [1, 1000])  # each alone, and several together with some left for the end
@pytest.mark.parametrize("train", [{}, dict(amp="bf16"), dict(checkpointing=True)])
def test_updates_during_the_backward_pass_are_those_after_it(train, at_least, options, monkeypatch):
    after, early = build(options, **train), build(options, **train)
    expected = run(after, 1, 3)
    monkeypatch.setattr(early_updates, "AT_LEAST", at_least)
    assert run(early, 1, 3) == expected
    assert all(torch.equal(a, b) for a, b in zip(weights(after), weights(early), strict=True))
    counts = [sum(p.grad is not None for p in model.net_g.parameters()) for model in (early, after)]
    assert counts[0] == 0 if at_least == 1 else 0 < counts[0] < counts[1]


class OwnAdam(torch.optim.Adam):
    """An unknown optimizer."""


@pytest.mark.parametrize(
    "train",
    [
        dict(accumulate=2),
        dict(grad_clip=1.0),
        dict(amp="fp16"),
        dict(compile=True),
        "optimizer",
        "network",
        pytest.param(
            "wrapped", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="DataParallel takes the GPU")
        ),
    ],
)
def test_all_gradients_are_available_if_they_are_needed_together(train, small_graphs, monkeypatch):
    monkeypatch.setattr(early_updates, "AT_LEAST", 1)
    model = build(small_graphs, **train if isinstance(train, dict) else {})
    if train == "optimizer":
        model.optimizer_g = OwnAdam(model.net_g.parameters())
    if train == "network":
        monkeypatch.setattr(BIDiffSRUNet, "early_updates", False)
    if train == "wrapped":
        model.net_g = nn.DataParallel(model.net_g)
    run(model, 1, 1, count=2)
    assert any(p.grad is not None for p in model.net_g.parameters())


class NoWaiting(TorchDispatchMode):
    """Refuses operators that read a number from a tensor, which would synchronise with a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("binarizer", BINARIZERS)
def test_neither_pass_reads_a_number_from_a_tensor(binarizer, tiny_options):
    competitor = {} if binarizer == "bidiffsr" else COMPETITOR
    network = BIDiffSRUNet(**tiny_options | dict(binarizer=binarizer, dropout=0.2) | competitor)
    x, time = torch.rand(2, 3, 16, 16), torch.tensor([3, 97])
    with NoWaiting(), cached_weights(network):
        network(x, x, time).mean().backward()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        time[0].item()


def test_accumulate_must_divide_the_batch(options):
    with pytest.raises(InputError, match="accumulate to divide the batch of 3 images, got 2"):
        run(build(options, accumulate=2), 1, 1, count=3)


def gradient_norm(model: BIDiffSRModel) -> float:
    return nn.utils.get_total_norm([p.grad for p in model.net_g.parameters() if p.grad is not None]).item()


def test_gradients_are_clipped_to_their_norm(options):
    free, clipped = build(options), build(options, grad_clip=0.01)
    run(free, 1, 1)
    run(clipped, 1, 1)
    assert gradient_norm(free) > 0.02
    assert gradient_norm(clipped) == pytest.approx(0.01, rel=1e-3)  # torch divides by the norm + 1e-6


@pytest.mark.parametrize("binarizer", ["bidiffsr", "reactnet"])
def test_checkpointing_changes_no_gradient_and_no_running_statistics(binarizer, tiny_options):
    options = tiny_options | dict(binarizer=binarizer, dropout=0.3) | (COMPETITOR if binarizer == "reactnet" else {})
    networks = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = BIDiffSRUNet(**options)
        if checkpointing:
            set_checkpointing(network)
        torch.manual_seed(1)
        x, y = torch.rand(2, 2, 3, 8, 8)
        network(x, y, torch.tensor([3, 97])).square().mean().backward()
        networks.append(network)
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert all(torch.equal(a, b) for a, b in zip(*(network.buffers() for network in networks), strict=True))


def kept_bytes(network: nn.Module) -> int:
    """Bytes of the activations that a forward pass leaves for the backward pass."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = torch.rand(2, 3, 32, 32)
        out = network(x, x, torch.tensor([3, 97]))
    assert out.requires_grad
    return sum(storages.values())


def test_checkpointing_stores_less(tiny_options):
    network = BIDiffSRUNet(**tiny_options | dict(res_blocks=2, fusion="split"))
    for module in network.modules():
        if isinstance(module, NormSwish):
            module.recompute = False  # its hooks would hide from this test what is stored, as those of fusion cs do
    before = kept_bytes(network)
    set_checkpointing(network)
    assert kept_bytes(network) < 0.6 * before


@pytest.mark.parametrize(("device", "options"), [("cpu", {"layout_optimization": False}), ("cuda", None)])
def test_maps_have_the_layout_of_the_popcount_kernels(device, options, tiny_network, monkeypatch):
    asked = []
    monkeypatch.setattr(tiny_network, "compile", lambda **kwargs: asked.append(kwargs))
    Stepping(Step(compile=True)).prepare(tiny_network, torch.device(device))
    assert asked == [{"options": options}]


@pytest.mark.parametrize("binarizer", ["bidiffsr", "xnor", "irnet"])  # together they have every part
def test_a_unet_compiles_as_one_graph(binarizer, tiny_options):
    torch.compiler.reset()
    options = tiny_options | dict(binarizer=binarizer, channel_mults=[1], image_size=32)
    options |= {} if binarizer == "bidiffsr" else COMPETITOR
    network = BIDiffSRUNet(**options)
    x, time = torch.rand(2, 3, 8, 8), torch.tensor([3, 97])
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    out = compiled(x, x, time)
    torch.testing.assert_close(out, network(x, x, time), atol=1e-5, rtol=1e-4)
    out.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_signs_and_scales_stay_float32_under_autocast(dtype):
    layer = BinaryConv2d(1, 1, 1, BINARIZERS["bidiffsr"], identity=False)
    layer.binary_conv.weight.data.fill_(1 / 3)
    layer.TaA.slope.data.fill_(1.0)
    layer.TaR.bias.data.fill_(-1.0001)  # in 16 bits, this is -1
    with torch.autocast("cpu", dtype=dtype):
        z = layer(torch.ones(1, 1, 1, 1))
    assert z.dtype == dtype and z.item() == torch.tensor(-1 / 3).to(dtype).item()
    scale = layer.binary_conv.binarized(layer.binary_conv.weight).scale
    assert scale.dtype == torch.float32


def test_dropout_drops_its_share_scales_the_rest_and_depends_on_the_seed_alone():
    dropout, x = Dropout(0.2), torch.ones(1000, 101)
    torch.manual_seed(0)
    out = dropout(x)
    assert set(out.unique().tolist()) == {0.0, 1.25}
    # 5 standard deviations, sqrt(p (1 - p) / n)
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / x.numel()) ** 0.5)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), out)
    assert not torch.equal(dropout(x), out)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x) and Dropout(1.0)(x).abs().max() == 0


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"amp": "fp8"}, "train: amp to be one of bf16, fp16, or ~, got 'fp8'"),
        ({"amp": True}, "train: amp to be one of bf16, fp16, or ~, got True"),
        ({"compile": "max"}, "train: compile to be true or false, or ~, got 'max'"),
        ({"checkpointing": 2}, "train: checkpointing to be true or false, or ~, got 2"),
        ({"channels_last": "no"}, "train: channels_last to be true or false, or ~, got 'no'"),
        ({"accumulate": 0}, "accumulate to be an integer of at least 1, without a decimal point, or ~, got 0"),
        ({"accumulate": 1.5}, "accumulate to be an integer of at least 1, without a decimal point, or ~, got 1.5"),
        ({"accumulate": True}, "accumulate to be an integer of at least 1, without a decimal point, or ~, got True"),
        ({"grad_clip": -1}, "train: grad_clip to be a number above 0, or ~, got -1"),
        ({"grad_clip": float("nan")}, "train: grad_clip to be a number above 0, or ~, got nan"),
    ],
)
def test_impossible_values_are_refused(train, message, options):
    with pytest.raises(InputError, match=message):
        build(options, **train)


def test_values_that_switch_off_are_accepted():
    stepping = Stepping(Step(amp=None, compile=False, checkpointing=None, accumulate=1, grad_clip=None))
    assert stepping.amp is None and not stepping.compile and stepping.grad_clip is None


def test_checkpointing_needs_res_blocks():
    with pytest.raises(InputError, match="expected a network with ResBlocks for checkpointing, got Conv2d"):
        set_checkpointing(nn.Conv2d(1, 1, 1))


@pytest.fixture
def formulas():
    """The reference of the benchmark of training steps."""
    path = Path(__file__).parents[1] / "benchmarks" / "straight_line.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_are_those_of_the_straight_line_composition(formulas, tiny_options):
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(BIDiffSRUNet(**tiny_options))
        # While these biases are 0, PReLU meets exact zeros, where rounding alone says which side's gradient counts.
        for module in networks[-1].modules():
            if isinstance(module, TimestepRPReLU):
                nn.init.normal_(module.bias0, std=1e-3)
    formulas.straight_line(networks[1])
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99)) for network in networks]
    for iteration in range(10):
        x, y, noise = torch.rand(3, 2, 3, 16, 16)
        time = torch.randint(tiny_options["total_step"], (2,))
        losses = []
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            loss = (network(x, y, time) - noise).abs().mean()
            loss.backward()
            losses.append(loss.item())
        if iteration == 0:
            assert abs(losses[0] - losses[1]) <= 1e-6
            ours, theirs = (
                torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
                for network in networks
            )
            assert (ours - theirs).norm() <= 1e-4 * theirs.norm()
        assert abs(losses[0] - losses[1]) <= 1e-5, iteration
        for optimizer in optimizers:
            optimizer.step()

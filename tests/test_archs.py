"""The networks: golden outputs and gradients of the reference, its parameter names, options, and errors."""

import itertools
import json
import warnings
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.archs import BIDiffSRUNet, SR3UNet
from bidiffsr_arch.archs.blocks import PlainConv2d, SelfAttention, TimeCode
from bidiffsr_arch.archs.fusion import CSFusion
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
BIDIFFSR = ["bidiffsr_tiny", "bidiffsr_attn_k5"]
# The reference ran in float32 on another machine; its outputs are of order 1.
OUTPUT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
# Some gradients vanish mathematically (a constant before a GroupNorm of one channel a group) and are rounding noise of
# 1e-10 in both.
GRADIENT_NOISE = 1e-8


def load(name: str, cls: type) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    content = np.load(GOLDEN / f"{name}.npz")
    tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "config"}
    network = cls(**json.loads(str(content["config"])))
    network.load_state_dict({key.removeprefix("state/"): t for key, t in tensors.items() if key.startswith("state/")})
    return network.eval(), tensors


@pytest.mark.parametrize(("name", "cls"), [*((name, BIDiffSRUNet) for name in BIDIFFSR), ("sr3_tiny", SR3UNet)])
@torch.no_grad()
def test_outputs_are_the_references(name, cls):
    network, golden = load(name, cls)
    for key in (key for key in golden if key.startswith("out/")):
        t = float(key.removeprefix("out/"))
        out = network(golden["x"], golden["cond"], torch.full((2, 1), t))
        torch.testing.assert_close(out, golden[key], atol=OUTPUT_TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", BIDIFFSR)
@torch.no_grad()
def test_each_sample_of_a_batch_has_its_own_timestep(name):
    network, golden = load(name, BIDiffSRUNet)
    for first, second in itertools.permutations(golden["times"].tolist(), 2):
        out = network(golden["x"], golden["cond"], torch.tensor([first, second]))
        for row, t in enumerate((first, second)):
            torch.testing.assert_close(out[row], golden[f"out/{t}"][row], atol=OUTPUT_TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", BIDIFFSR)
def test_gradients_are_the_references(name):
    network, golden = load(name, BIDiffSRUNet)
    out = network(golden["x"], golden["cond"], golden["times"][:1].expand(2))
    (out - golden["grad_target"]).abs().mean().backward()
    for parameter in network.parameters():  # the state dict writes gradients under the reference's names
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    for key, value in network.state_dict().items():
        expected = golden[f"grad/{key}"]
        assert (value - expected).norm() <= GRADIENT_TOLERANCE * expected.norm() + GRADIENT_NOISE, key


def test_full_size_network_has_the_references_names_and_shapes():
    lines = (GOLDEN / "bidiffsr_official_keys.txt").read_text().splitlines()
    expected = {name: shape for name, shape in (line.split("\t") for line in lines)}
    network = BIDiffSRUNet()
    state = network.state_dict()
    assert {name: str(tuple(t.shape)) for name, t in state.items()} == expected and len(expected) == 1371
    assert sum(t.numel() for t in state.values()) == 51_280_387

    published = {name: torch.randn_like(t) for name, t in state.items()}
    network.load_state_dict(published, strict=True)
    assert all(torch.equal(t, published[name]) for name, t in network.state_dict().items())


SWITCHES = {
    "rescale": ["cp", "pixelshuffle"],
    "fusion": ["cs", "split", "concat", "add"],
    "identity": [True, False],
    "fp_res": [[], [16]],
}


@pytest.mark.parametrize("values", list(itertools.product(*SWITCHES.values())))
@torch.no_grad()
def test_every_combination_of_switches_runs_and_round_trips(values, tiny_options):
    options = tiny_options | dict(zip(SWITCHES, values, strict=True))
    network, copy = BIDiffSRUNet(**options).eval(), BIDiffSRUNet(**options).eval()
    copy.load_state_dict(network.state_dict())
    x, y, t = torch.rand(2, 3, 10, 14), torch.rand(2, 3, 10, 14), torch.tensor([3, 97])
    out = network(x, y, t)
    assert out.shape == x.shape and torch.equal(out, copy(x, y, t))


@pytest.mark.parametrize("name", BINARIZERS)
def test_every_binarizer_runs_in_the_baseline_network(name, tiny_options):
    options = tiny_options | dict(binarizer=name, rescale="pixelshuffle", fusion="concat", tar=False, taa=False)
    out = BIDiffSRUNet(**options)(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.tensor([0, 99]))
    assert out.shape == (2, 3, 8, 8) and torch.isfinite(out).all()


@pytest.mark.parametrize(("tar", "taa"), list(itertools.product([True, False], repeat=2)))
def test_only_switched_banks_depend_on_the_timestep_group(tar, taa, tiny_options):
    conv = BIDiffSRUNet(**tiny_options, tar=tar, taa=taa).downs[1].res_block.block1.conv
    assert (conv.TaR.groups, conv.TaA.groups) == (3 if tar else 1, 3 if taa else 1)


@torch.no_grad()
@pytest.mark.parametrize("cls", [BIDiffSRUNet, SR3UNet])
def test_attention_in_the_bottleneck_is_optional(cls, tiny_options):
    sizes = {key: tiny_options[key] for key in ("inner_channel", "norm_groups", "channel_mults", "res_blocks")}
    with_it, without = (cls(**sizes | dict(attn_res=[], mid_attn=mid_attn)) for mid_attn in (True, False))
    kinds = [any(isinstance(module, SelfAttention) for module in network.modules()) for network in (with_it, without)]
    assert kinds == [True, False]
    assert without(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.tensor([5])).shape == (1, 3, 8, 8)


@torch.no_grad()
def test_zero_init_predicts_zero(tiny_options):
    for network in (
        BIDiffSRUNet(**tiny_options, zero_init=True),
        SR3UNet(inner_channel=8, norm_groups=4, channel_mults=[1, 2], zero_init=True),
    ):
        assert network(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.tensor([5])).abs().max() == 0


@given(st.sampled_from([BIDiffSRUNet, SR3UNet]), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_patches_are_pixels_moved_into_channels(cls, patch_size, rows, columns):
    """A network on patches is the network whose first and last layers take the patches' pixels as channels."""
    sizes = dict(inner_channel=8, norm_groups=4, channel_mults=[1, 2], res_blocks=1)
    torch.manual_seed(0)
    network = cls(**sizes, patch_size=patch_size, input_scale=0.25, output_scale=2).eval()
    inside = cls(**sizes, in_channel=6 * patch_size**2, out_channel=3 * patch_size**2).eval()
    inside.load_state_dict(network.state_dict())
    assert network.multiple == 2 * patch_size
    height, width = rows * network.multiple, columns * network.multiple
    x_t, condition, time = torch.rand(2, 3, height, width), torch.rand(2, 3, height, width), torch.tensor([3, 97])
    patches = F.pixel_unshuffle(torch.cat([condition, x_t], 1) / 4, patch_size)
    half = patches.shape[1] // 2
    out = network(x_t, condition, time)
    assert out.shape == x_t.shape
    expected = 2 * inside(patches[:, half:], patches[:, :half], time)
    torch.testing.assert_close(F.pixel_unshuffle(out, patch_size), expected)


def test_size_must_fit_patches_and_levels(tiny_options):
    x = torch.rand(1, 3, 16, 12)
    with pytest.raises(InputError, match="multiples of 8, got 16x12"):
        BIDiffSRUNet(**tiny_options, patch_size=4)(x, x, torch.tensor([0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binarizer": "ternary"}, "expected binarizer to be one of bnn, dorefa"),
        ({"fusion": "sum"}, "expected fusion to be one of cs"),
        ({"rescale": "nearest"}, "expected rescale to be one of cp"),
        ({"channel_mults": [1, 4]}, "expected channel_mults to double"),
        ({"norm_groups": 3}, "expected norm_groups to divide"),
        ({"inner_channel": 9, "norm_groups": 9}, "expected an even inner_channel"),
        ({"dynamic_group": 0}, "expected dynamic_group to be 1 or more"),
        ({"binarizer": "bnn", "taa": False}, "expected tar: false with binarizer bnn"),
        ({"binarizer": "xnor", "tar": False}, "expected taa: false with binarizer xnor"),
        ({"patch_size": 0}, "expected patch_size to be 1 or more, got 0"),
        ({"input_scale": 0}, "expected input_scale above 0, got 0"),
        ({"output_scale": -1.0}, "expected output_scale above 0, got -1.0"),
    ],
)
def test_combinations_that_cannot_work_are_refused_with_the_reason(options, message, tiny_options):
    with pytest.raises(InputError, match=message):
        BIDiffSRUNet(**tiny_options | options)


def test_wrong_sizes_and_times_are_refused(tiny_network):
    x = torch.rand(1, 3, 8, 9)
    with pytest.raises(InputError, match="multiples of 2, got 8x9"):
        tiny_network(x, x, torch.tensor([0]))
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"\(2,\) or \(2, 1\)"):
        tiny_network(x, x, torch.tensor([0]))


def test_attention_stores_no_score_matrix():
    """For the 9216 positions here, the score matrix would take 340 MB; torch's kernel must not store it."""
    attention = SelfAttention(8, 4).eval()
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        attention(torch.randn(1, 8, 96, 96))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < 2**26, f"{largest} bytes at once"


@pytest.mark.parametrize("side", [1, 2])
def test_attention_gets_aligned_tokens(side, monkeypatch):
    """On CUDA a stride of 1 between tokens, even if there is one, ends in "cutlassF: no kernel found to launch!"."""
    strides = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention",
                        lambda *tokens: strides.extend(t.stride() for t in tokens) or attend(*tokens))  # fmt: skip
    with torch.no_grad():
        SelfAttention(8, 4)(torch.randn(2, 8, side, side))
    assert [stride[2:] for stride in strides] == [(24, 1)] * 3


@pytest.mark.parametrize("conv", [PlainConv2d, partial(BinaryConv2d, method=BINARIZERS["bidiffsr"])])
def test_a_shuffling_fusion_stores_none_of_its_inputs(conv, monkeypatch):
    joined = []
    cat = torch.cat

    def seen(*args, **kwargs):
        out = cat(*args, **kwargs)
        joined.append(weakref.ref(out))
        return out

    fusion = CSFusion(4, conv)
    x, skip = torch.randn(2, 1, 4, 6, 6).requires_grad_()
    monkeypatch.setattr(torch, "cat", seen)
    out = fusion(x, skip, TimeCode(torch.zeros(1, 8)))
    assert len(joined) == 2 and not any(ref() is not None for ref in joined)
    out.sum().backward()
    assert len(joined) == 4


@pytest.mark.parametrize("enabled", [True, False])
def test_a_trace_passes_its_own_check(tiny_network, enabled):
    """With gradients, recomputations were recorded, which differ from one trace to the next."""
    inputs = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.tensor([3, 70])]
    others = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.tensor([90, 40])]
    with torch.set_grad_enabled(enabled), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(tiny_network, inputs)
        assert torch.equal(traced(*others), tiny_network(*others))

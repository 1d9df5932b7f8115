"""The packed network against the training network, layer by layer and end to end."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from networks import randomized, rms
from probes import signs_of
from torch import nn

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed import pack
from bidiffsr_arch.packed.arena import Arena
from bidiffsr_arch.packed.backends import choose_backend
from bidiffsr_arch.packed.layers import BinaryConv, LayerBuilder, StepContext
from bidiffsr_arch.packed.layout import aligned, pad_last, padded
from bidiffsr_arch.packed.state import packed_state

BASE = dict(
    inner_channel=8,
    norm_groups=4,
    channel_mults=[1, 2],
    res_blocks=1,
    dropout=0.1,
    image_size=16,
    fp_res=[16],
    total_step=100,
    dynamic_group=3,
)
PLAIN = dict(tar=False, taa=False)
VARIANTS = {
    "paper": {},
    "three levels": dict(channel_mults=[1, 2, 4], res_blocks=2, fp_res=[16, 8]),
    "all binary": dict(fp_res=[]),
    "all full precision": dict(fp_res=[16, 8]),
    "odd widths": dict(inner_channel=18, norm_groups=3),
    "attention": dict(attn_res=[16, 8]),
    "one level": dict(channel_mults=[1]),
    "no attention": dict(attn_res=[], mid_attn=False),
    "patches": dict(patch_size=2, input_scale=0.25, output_scale=0.5),
    "no identity": dict(identity=False),
    "one group": dict(dynamic_group=1),
    "split": dict(fusion="split", fp_res=[8]),
    "concat": dict(fusion="concat", fp_res=[8]),
    "add": dict(fusion="add"),
    "pixel shuffle": dict(rescale="pixelshuffle", fusion="concat"),
    "xnor with attention": dict(binarizer="xnor", fp_res=[], attn_res=[16], **PLAIN),
    **{name: dict(binarizer=name, **({} if name == "bidiffsr" else PLAIN)) for name in BINARIZERS},
}


def network_of(variant: str) -> BIDiffSRUNet:
    torch.manual_seed(0)
    return randomized(BIDiffSRUNet(**BASE | VARIANTS[variant]))


def inputs(batch: int = 2, height: int = 12, width: int = 20) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    x_t, condition = torch.rand(2, batch, 3, height, width, generator=generator)
    return x_t, condition, torch.tensor([5, 99, 40])[:batch]


@pytest.mark.parametrize("variant", VARIANTS)
def test_end_to_end(variant, backend):
    network = network_of(variant)
    args = inputs()
    with torch.no_grad():
        exact = copy.deepcopy(network).double()(args[0].double(), args[1].double(), args[2])
        theirs = rms(network(*args), exact)
    packed = pack(network, backend.name)
    result = packed(*args)
    assert result.shape == exact.shape and result.dtype == torch.float32
    # 1.2 times float32's own error; where no sign flips both are rounding, and 1e-6 of it is allowed
    assert rms(result, exact) <= max(1.2 * theirs, 1e-6)
    torch.testing.assert_close(packed(*args), result, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_memory_is_released_and_reused(variant):
    packed, memory = pack(network_of(variant), "torch"), []
    for _ in range(3):
        packed(*inputs())
        blocks = packed.arena._blocks
        assert all(block.unused for block in blocks)
        memory.append(sum(block.memory.size for block in blocks))
    assert memory[1] == memory[2]


@pytest.mark.parametrize("variant", ["paper", "one level", "attention"])
def test_skips_that_are_recomputed_change_nothing(variant, monkeypatch):
    packed = pack(network_of(variant), "torch")
    expected = packed(*inputs())
    before = sum(block.memory.size for block in packed.arena._blocks)
    monkeypatch.setattr("bidiffsr_arch.packed.bidiffsr.KEPT", 0)
    packed.arena.begin((0, 0))
    torch.testing.assert_close(packed(*inputs()), expected, rtol=0, atol=0)
    blocks = packed.arena._blocks
    assert all(block.unused for block in blocks)
    assert sum(block.memory.size for block in blocks) < before


@pytest.mark.parametrize("variant", ["paper", "all binary", "odd widths", "xnor", "reactnet", "concat"])
def test_every_layer_on_the_same_input(variant, backend):
    """With the same input a packed layer has the same integers as the float one; the numbers differ by rounding."""
    network = network_of(variant)
    seen = []

    def note(module: BinaryConv2d, args: tuple, out: torch.Tensor, name: str) -> None:
        x, group = args
        seen.append((name, module, x.clone(), group, out.clone()))  # the network goes on with both in place

    for name, module in network.named_modules():
        if isinstance(module, BinaryConv2d):
            module.register_forward_hook(partial(note, name=name))
    with torch.no_grad():
        network(*inputs(batch=1))
    builder = LayerBuilder(packed_state(network), backend, Arena())
    assert seen
    for name, module, x, group, expected in seen:
        layer = BinaryConv(builder, name, module)
        out = aligned((*x.shape[2:], padded(layer.filters)))
        layer(pad_last(np.ascontiguousarray(x[0].permute(1, 2, 0))), StepContext(int(group[0])), out)
        result = torch.from_numpy(out[..., : layer.filters]).permute(2, 0, 1)
        # one flipped sign would change a result by 2 * scale, a thousand times as much
        scale = builder.state[f"{name}.binary_conv.scale"].max().item()
        torch.testing.assert_close(result, expected[0], rtol=1e-5, atol=max(1e-5, 1e-3 * scale))


class Float(NamedTuple):
    """Inputs of a 1-bit layer of the float network: the map before its GroupNorm and Swish, if it has them, the map
    that it took the signs of, and the biases of TaR.
    """

    name: str
    before_norm: torch.Tensor | None
    x: torch.Tensor
    shift: np.ndarray

    @property
    def r(self) -> np.ndarray:
        """(H, W, C), whose signs count."""
        return np.ascontiguousarray(self.x[0].permute(1, 2, 0)) + self.shift


def float_layers(network: nn.Module, args: tuple) -> list[Float]:
    """All 1-bit layers of a step, in the order in which they ran."""
    before, seen = {}, []

    def note_norm(module: nn.GroupNorm, given: tuple, name: str) -> None:
        before[name] = given[0].clone()

    def note(module: BinaryConv2d, given: tuple, name: str) -> None:
        x, group = given
        shift = np.zeros(x.shape[1], np.float32) if module.TaR is None else module.TaR.bias[int(group[0])].numpy()
        seen.append(Float(name, before.get(name.removesuffix("conv") + "block.0"), x.clone(), shift))

    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(partial(note_norm, name=name))
        if isinstance(module, BinaryConv2d):
            module.register_forward_pre_hook(partial(note, name=name))
    with torch.no_grad():
        network(*args)
    return seen


def differences(layer: Float, signs: np.ndarray) -> np.ndarray:
    """|r| wherever signs are not those of r."""
    assert signs.shape == layer.r.shape and set(np.unique(signs)) <= {-1.0, 1.0}
    return np.abs(layer.r[signs != np.where(layer.r >= 0, 1, -1)])


def line(layer: Float, found: np.ndarray) -> str:
    return f"{layer.name}: {found.size} of {layer.r.size} signs differ, at |r| <= {found.max(initial=0):.1e}"


SIGN_VARIANTS = ["paper", "three levels", "all binary", "odd widths", "concat", "split", "xnor", "bnn"]


@pytest.mark.parametrize("variant", SIGN_VARIANTS)
def test_signs_of_every_layer_on_the_same_input(variant, backend):
    """Each layer is given what the float layer was given, before GroupNorm where it has one: a sign differs only where
    the number is nearly 0, and never where no norm comes before it.
    """
    network = network_of(variant)
    builder = LayerBuilder(packed_state(network), backend, Arena())
    layers = float_layers(network, inputs(1, 32, 48))
    assert sum(layer.before_norm is not None for layer in layers) >= 2
    report, total = [], 0
    for layer in layers:
        norm, x = None, layer.x if layer.before_norm is None else layer.before_norm
        values = pad_last(np.ascontiguousarray(x[0].permute(1, 2, 0)))
        if layer.before_norm is not None:
            name = layer.name.removesuffix("conv") + "block.0"
            parameters = builder.group_norm(name, network.get_submodule(name))
            norm = backend.group_norm(parameters, backend.sums(values), values.shape[0] * values.shape[1])
        found = differences(layer, signs_of(backend, values, layer.shift, len(layer.shift), norm))
        report.append(line(layer, found))
        total += layer.r.size
        assert (found < 1e-5).all() and (norm is not None or not found.size), "\n".join(report)
    assert total > 50_000


@pytest.mark.parametrize("variant", SIGN_VARIANTS)
def test_signs_of_the_whole_network(variant, backend, monkeypatch):
    """Both networks run separately. The first differing signs must be of numbers close to 0; later layers have
    different inputs."""
    network = network_of(variant)
    args = inputs(1, 32, 48)
    layers = float_layers(network, args)
    packed = pack(network, backend.name)
    operation, seen = packed.backend.binary_conv, []

    def watched(x, weight, shift, *rest, first=0, norm=None, **options):
        channels = int(np.isfinite(shift).sum())
        with monkeypatch.context() as patch:
            patch.setattr(packed.backend, "binary_conv", operation)
            seen.append(signs_of(packed.backend, x, shift[:channels], channels, norm, first))
        return operation(x, weight, shift, *rest, first=first, norm=norm, **options)

    monkeypatch.setattr(packed.backend, "binary_conv", watched)
    packed(*args)
    assert len(seen) == len(layers)
    report = []
    for layer, signs in zip(layers, seen, strict=True):
        found = differences(layer, signs)
        report.append(line(layer, found))
        assert (found < 1e-5).all(), "\n".join(report)
        if found.size:
            break


@pytest.mark.parametrize("size", [(2, 2), (6, 14), (34, 18)])
def test_sizes(size, backend):
    network = network_of("paper")
    args = inputs(1, *size)
    with torch.no_grad():
        expected = network(*args)
    torch.testing.assert_close(pack(network, backend.name)(*args), expected, rtol=1e-4, atol=1e-5)


def test_samples_of_a_batch_have_their_own_timestep(backend):
    packed = pack(network_of("paper"), backend.name)
    x_t, condition, time = inputs(3)
    together = packed(x_t, condition, time[:, None])
    for i in range(3):
        alone = packed(x_t[i : i + 1], condition[i : i + 1], time[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_backends_agree(backend):
    network = network_of("three levels")
    args = inputs()
    torch.testing.assert_close(pack(network, backend.name)(*args), pack(network, "torch")(*args), rtol=1e-4, atol=1e-5)


def test_packing_does_not_change_the_network():
    network = network_of("paper").train()
    before = copy.deepcopy(network.state_dict())
    packed = pack(nn.DataParallel(network), "torch")
    assert network.training and all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    result = packed(*inputs(1))
    network.downs[0].weight.data += 1
    torch.testing.assert_close(packed(*inputs(1)), result, rtol=0, atol=0)


def test_threads_do_not_change_results(needs_numba):
    packed, args = pack(network_of("three levels")), inputs(1, 32, 48)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(packed(*args))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_copies_and_threads(needs_numba):
    packed, args = copy.deepcopy(pack(network_of("paper"))), inputs(1)
    expected = packed(*args)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: packed(*args), range(8)))
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


class Doubled(BIDiffSRUNet):
    """A network that overrides forward, which the packed class does not know."""

    def forward(self, *args):
        return 2 * super().forward(*args)


def test_refusals():
    with pytest.raises(InputError, match=r"one of BBCUNet, BIDiffSRUNet, SR3UNet.*got Linear"):
        pack(nn.Linear(2, 2))
    with pytest.raises(InputError, match="overrides forward"):
        pack(Doubled(**BASE))
    with pytest.raises(InputError, match="numba-avx2, numba-portable, torch"):
        choose_backend("numpy")
    with pytest.raises(InputError, match="multiples of 2"):
        pack(network_of("paper"), "torch")(*inputs(1, 7, 8))
    network = network_of("paper")
    network.downs[1].res_block.block1.conv.binary_conv.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="one number times"):
        pack(network)


def test_without_numba(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("bidiffsr_arch.packed.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from bidiffsr_arch.packed import backends

    assert backends.choose_backend().name == "torch"
    with pytest.raises(InputError, match="expected Numba"):
        backends.choose_backend("numba-portable")

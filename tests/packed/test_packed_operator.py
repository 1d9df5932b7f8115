"""A packed network in compiled graphs: one operator of torch.library with a fake kernel."""

import copy

import pytest
import torch
from networks import randomized
from torch import nn

from bidiffsr_arch.archs import BBCUNet, BIDiffSRUNet
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.packed import PackedNetwork, pack, pack_layer


def packed_layers(**options) -> PackedNetwork:
    return pack_layer(randomized(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2),
                                           BinaryConv2d(2, 5, 3, BINARIZERS["bbcu"]))), **options)  # fmt: skip


@pytest.fixture(params=["layers", "direct", "diffusion"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def packed(kind, backend, tiny_options) -> PackedNetwork:
    """A network of this kind on each backend."""
    if kind == "layers":
        return packed_layers(backend=backend.name)
    network = BBCUNet(num_feat=8, num_block=1, upscale=4) if kind == "direct" else BIDiffSRUNet(**tiny_options)
    return pack(randomized(network), backend.name)


def test_the_operator_passes_torchs_checks(kind, packed):
    channels, scale = {"layers": (5, 2), "direct": (3, 4), "diffusion": (3, 1)}[kind]
    arguments = (torch.rand(2, 6 if kind == "diffusion" else 3, 4, 6), torch.tensor([3, 97]), packed.handle)
    torch.library.opcheck(torch.ops.bidiffsr_arch.run_packed.default, arguments)
    assert torch.ops.bidiffsr_arch.run_packed(*arguments).shape == (2, channels, 4 * scale, 6 * scale)


def test_it_compiles_as_one_graph(kind, packed):
    """By the compiler's front end; Inductor, which compiles the rest of the graph in C++, takes half a minute."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    x_t, condition = torch.rand(2, 2, 3, 8, 12, generator=generator)
    arguments = (x_t, condition, torch.tensor([3, 97])) if kind == "diffusion" else (x_t,)
    compiled = torch.compile(packed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), packed(*arguments), rtol=0, atol=0)


def test_a_copy_is_a_network_of_its_own():
    packed = packed_layers(backend="torch")
    other = copy.deepcopy(packed)
    assert other.handle != packed.handle
    for layer in other.layers:
        if hasattr(layer, "conv") and hasattr(layer.conv, "bias"):
            layer.conv.bias += 1
    x, time = torch.rand(1, 3, 4, 4), torch.zeros(1, dtype=torch.long)
    ours, theirs = (torch.ops.bidiffsr_arch.run_packed(x, time, network.handle) for network in (packed, other))
    assert not torch.equal(ours, theirs)

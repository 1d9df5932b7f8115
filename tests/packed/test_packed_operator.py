"""A packed network in compiled graphs: one operator of torch.library with a fake kernel."""

import copy

import pytest
import torch
from networks import randomized
from torch import nn

from bidiffsr_arch.archs import BBCUNet
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.packed import PackedNetwork, pack, pack_layer


def packed_layers(**options) -> PackedNetwork:
    return pack_layer(randomized(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2),
                                           BinaryConv2d(2, 5, 3, BINARIZERS["bbcu"]))), **options)  # fmt: skip


def test_the_operator_passes_torchs_checks():
    packed = packed_layers(backend="torch")
    arguments = (torch.rand(2, 3, 5, 7), torch.zeros(2, dtype=torch.long), packed.handle)
    torch.library.opcheck(torch.ops.bidiffsr_arch.run_packed.default, arguments)
    assert torch.ops.bidiffsr_arch.run_packed(*arguments).shape == (2, 5, 10, 14)


@pytest.mark.parametrize("kind", ["layers", "direct", "diffusion"])
def test_it_compiles_as_one_graph(kind, tiny_network):
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    x_t, condition = torch.rand(2, 2, 3, 8, 12, generator=generator)
    networks = {
        "layers": packed_layers,
        "direct": lambda backend: pack(randomized(BBCUNet(num_feat=8, num_block=1)), backend),
        "diffusion": lambda backend: pack(randomized(tiny_network), backend),
    }
    packed = networks[kind](backend="torch")
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

"""Packed networks beside BI-DiffSR's UNet: SR3 with float kernels, and the direct BBCUNet."""

import copy

import pytest
import torch
from networks import randomized, rms

from bidiffsr_arch.archs import BBCUNet, SR3UNet
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed import Description, PackedBBCUNet, PackedSR3, load_packed, pack, save_packed

SR3 = dict(inner_channel=16, norm_groups=4, channel_mults=[1, 3], res_blocks=1, image_size=16)
BBCU = dict(num_feat=20, num_block=2, upscale=4)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, {"attn_res": [16]}, {"inner_channel": 12}, {"patch_size": 2, "input_scale": 0.5, "output_scale": 2}],
    ids=["plain", "attention", "odd width", "patches"],
)
def test_sr3_with_own_kernels_is_sr3(backend, options):
    torch.manual_seed(0)
    network = SR3UNet(**SR3 | options).eval()
    own = pack(network, backend.name)
    args = (*torch.rand(2, 2, 3, 24, 40), torch.tensor([300, 20]))
    assert isinstance(own, PackedSR3)
    for _ in range(2):
        torch.testing.assert_close(own(*args), network(*args), rtol=1e-4, atol=2e-5)
        assert all(block.unused for block in own.arena._blocks)


def bbcu(**options) -> BBCUNet:
    torch.manual_seed(0)
    return randomized(BBCUNet(**BBCU | options))


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, {"upscale": 2, "num_feat": 16}, {"upscale": 1}, {"binarizer": "xnor"}, {"binarizer": "reactnet"}],
    ids=["x4", "x2", "x1", "xnor", "reactnet"],
)
def test_a_direct_network_packed_is_the_network(backend, options):
    network = bbcu(**options)
    images = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(2))
    exact = copy.deepcopy(network).double()(images.double())
    packed = pack(network, backend.name)
    result = packed(images)
    assert result.shape == (2, 3, 9 * network.upscale, 14 * network.upscale) and result.dtype == torch.float32
    # 1.2 times float32's own error; where no sign flips both are rounding, and 1e-6 of it is allowed
    assert rms(result, exact) <= max(1.2 * rms(network(images), exact), 1e-6)
    torch.testing.assert_close(packed(images), result, rtol=0, atol=0)
    assert all(block.unused for block in packed.arena._blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upscale": 3}, "power of two"),
        ({"num_out_ch": 1}, "num_out_ch to equal num_in_ch"),
        ({"num_block": 0}, "1 or more"),
        ({"binarizer": "ternary"}, "binarizer"),
    ],
)
def test_bbcu_refuses(options, message):
    with pytest.raises(InputError, match=message):
        BBCUNet(**BBCU | options)


@pytest.mark.parametrize(
    ("network", "kind"), [(BBCUNet(**BBCU), PackedBBCUNet), (SR3UNet(**SR3), PackedSR3)], ids=["BBCUNet", "SR3UNet"]
)
def test_the_stored_type_decides(network, kind, tmp_path):
    options = SR3 if kind is PackedSR3 else BBCU
    description = Description({"type": type(network).__name__, **options}, scale=4)
    save_packed(pack(network, "torch"), tmp_path / "net.safetensors", description)
    loaded, found = load_packed(tmp_path / "net.safetensors", "torch")
    assert type(loaded) is kind and found == description
    torch.testing.assert_close(loaded.state, pack(network, "torch").state, rtol=0, atol=0)

"""Tiles: they cover an image, their weights sum to 1, and blending shows no seam."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.archs import BIDiffSRUNet, SR3UNet
from bidiffsr_arch.config.diffusion import BetaSchedule, DiffusionOptions
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, load_weights
from bidiffsr_arch.upscale import Upscaler
from bidiffsr_arch.upscale.spans import spans
from bidiffsr_arch.upscale.tiles import TiledNetwork
from bidiffsr_arch.weights import shipped_weights


@settings(deadline=None, max_examples=200)
@given(
    multiple=st.sampled_from([1, 2, 8]), length=st.integers(1, 120), tile=st.integers(1, 40), share=st.floats(0, 0.5)
)
def test_spans_cover_an_axis_with_weights_that_sum_to_1(multiple, length, tile, share):
    length, tile = length * multiple, tile * multiple
    overlap = int(share * tile / multiple) * multiple
    found = spans(length, tile, overlap, multiple)
    total, covered = torch.zeros(length), torch.zeros(length)
    for span in found:
        assert 0 <= span.start < span.stop <= length and span.stop - span.start <= tile
        assert span.start % multiple == 0 and span.stop % multiple == 0
        assert span.weight.min() >= 0 and span.weight.shape == (span.stop - span.start,)
        total[span.start : span.stop] += span.weight
        covered[span.start : span.stop] += 1
    torch.testing.assert_close(total, torch.ones(length))
    assert covered.min() >= 1
    assert all(first.stop - second.start >= overlap for first, second in pairwise(found))


def test_a_worked_example():
    first, second = spans(12, tile=8, overlap=4)
    assert (first.start, first.stop, second.start, second.stop) == (0, 8, 4, 12)
    # Of the shared pixels 4 to 7 the outer ones belong to one tile alone, and the weight passes over in between.
    assert first.weight.tolist() == [1, 1, 1, 1, 1, 0.75, 0.25, 0]
    assert second.weight.tolist() == [0, 0.25, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("tile", "overlap"), [(16, 9), (16, -1), (0, 0), (7, 0)])
def test_impossible_tiles_are_refused(tile, overlap):
    with pytest.raises(InputError, match="expected an overlap from 0 to half of the tile"):
        spans(64, tile, overlap, multiple=8)


def convolutions(reach: int) -> TiledNetwork:
    """A convolutional network with a receptive field of `reach` pixels in each direction: `reach` 3x3 convolutions."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 6, 3, 3, generator=generator) / 7
    others = [torch.randn(4, 4, 3, 3, generator=generator) / 6 for _ in range(reach - 2)]
    last = torch.randn(3, 4, 3, 3, generator=generator) / 6

    def network(x_t: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = torch.cat([condition, x_t], 1) + time[:, None, None, None] / 2000
        for weight in [first, *others, last]:
            h = torch.tanh(F.conv2d(h, weight, padding=1))
        return h

    return network


@pytest.mark.parametrize("sampler", ["DDIM", "DDPM"])
@pytest.mark.parametrize("size", [(64, 96), (41, 70)])
def test_tiles_equal_no_tiles_if_the_overlap_covers_the_receptive_field(size, sampler):
    """The whole sampling, ten steps: float32 rounding alone differs, below 1e-5 of the range [0, 1]."""
    network = convolutions(reach=4)
    condition = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    options = DiffusionOptions.read({"diffuse": "residual", "beta_schedule": {"scheduler_type": sampler}})
    process = SuperResolution(options)

    def sampled(tile: int | None, overlap: int = 16) -> torch.Tensor:
        tiled = TiledNetwork(network, tile, overlap, multiple=4)
        return process.sample(tiled, condition, [7], multiple=4, steps=10)

    whole = sampled(None)
    assert whole.std() > 0.1
    torch.testing.assert_close(sampled(32), whole, atol=1e-5, rtol=0)
    assert (sampled(32, overlap=4) - whole).abs().max() > 1e-4  # and an overlap that does not cover it shows


def test_tiles_are_counted_and_seen_by_the_caller():
    seen = []
    network = TiledNetwork(lambda x, c, t: x, tile=16, overlap=4, multiple=4, on_tile=lambda: seen.append(1))
    rows, columns = network.grid(32, 16)
    network(torch.zeros(1, 3, 32, 16), torch.zeros(1, 3, 32, 16), torch.zeros(1))
    assert len(seen) == len(rows) * len(columns) == 3


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        (dict(inner_channel=64), 256),
        (dict(inner_channel=64, mid_attn=False), 256),
        (dict(inner_channel=16), 256),  # with attention
        (dict(inner_channel=16, mid_attn=False), 512),
        (dict(inner_channel=48, mid_attn=False, patch_size=2), 591),
        (dict(inner_channel=64, mid_attn=False, patch_size=4), 1024),
        (dict(inner_channel=64, mid_attn=False, attn_res=[128], patch_size=4), 256),
    ],
)
@pytest.mark.parametrize("cls", [BIDiffSRUNet, SR3UNet])
def test_small_networks_get_larger_tiles(cls, sizes, side):
    """Tiles have the memory of the paper's network at 256x256; a packed network has those of its float one."""
    with torch.device("meta"):
        network = cls(channel_mults=[1, 2], res_blocks=1, **sizes)
    assert network.tile_side == side


def test_the_size_of_tiles_comes_with_the_weights():
    for scale, side in ((2, 591), (4, 1024)):
        weights = load_weights(shipped_weights(scale, "clean"))
        assert Upscaler(weights).network.tile == weights.tile == side
        assert Upscaler(weights, tile=64).network.tile == 64
    assert Weights(torch.nn.Identity(), {"scale": 2}, 1).tile == 256  # an architecture of another project
    with pytest.raises(InputError, match="expected tile to be a number of pixels, 'auto' or None, got 'large'"):
        Upscaler(weights, tile="large")


def test_an_image_of_one_tile_is_predicted_as_a_whole():
    network = TiledNetwork(lambda x, c, t: x, tile=16, overlap=4, multiple=4)
    x = torch.rand(1, 3, 16, 12)
    assert network(x, x, torch.zeros(1)) is x


def test_borders_of_tiles_are_no_steeper_than_the_rest(tiny_options):
    """A real network, whose GroupNorm and attention see only a tile: across the borders of tiles, and where the blend
    begins and ends, the mean gradient stays within 5 % of that elsewhere."""
    torch.manual_seed(0)
    network = BIDiffSRUNet(**tiny_options).eval()
    low = F.interpolate(torch.rand(1, 3, 12, 12), size=(64, 64), mode="bicubic").clamp(0, 1)
    options = DiffusionOptions(beta_schedule=BetaSchedule(n_timestep=100), diffuse="residual", residual_scale=4.0)
    process = SuperResolution(options)
    tiled = TiledNetwork(network, 48, 16, network.multiple)
    result = process.sample(tiled, upsample(low, 2), [0], multiple=network.multiple, steps=4)
    gradient = (result[..., 1:] - result[..., :-1]).abs().mean((0, 1, 2))
    _, columns = tiled.grid(128, 128)
    assert len(columns) > 2
    edges = [edge for one, two in pairwise(columns) for edge in (two.start, one.stop)]
    border = torch.zeros(127, dtype=torch.bool)
    for edge in edges:
        border[edge - 1] = True
    blend = torch.zeros(127, dtype=torch.bool)
    for one, two in pairwise(columns):
        blend[two.start - 1 : one.stop] = True
    assert gradient[border].mean() <= 1.05 * gradient[~border].mean()
    assert gradient[blend].mean() <= 1.05 * gradient[~blend].mean()

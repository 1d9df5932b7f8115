"""The distance between the grids of two images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.grid import grid_distance, relative_differences, repeated_pattern

SIDE = 48


def natural(seed: int = 0, number: int = 2) -> torch.Tensor:
    """Smooth random images (N, 3, 48, 48)."""
    small = torch.rand(number, 3, SIDE // 4 + 2, SIDE // 4 + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)


def in_patches(images: torch.Tensor, period: int) -> torch.Tensor:
    """Every patch has one value, so that all differences are at its borders."""
    means = torch.nn.functional.avg_pool2d(images, period)
    return means.repeat_interleave(period, 2).repeat_interleave(period, 3)


@given(period=st.sampled_from([2, 3, 4, 6, 8]), seed=st.integers(0, 9))
def test_differences_of_patches_are_at_their_borders(period, seed):
    differences = relative_differences(in_patches(natural(seed), period), period)
    borders = torch.tensor([[[float(period)] + [0.0] * (period - 1)] * 2] * 2)
    # A quarter of a grey level is added everywhere, up to a twelfth of the mean.
    torch.testing.assert_close(differences, borders, rtol=0.1, atol=0.1)
    assert (relative_differences(natural(seed), period) < 1.3).all()


@given(period=st.sampled_from([2, 3, 4, 6, 8]), seed=st.integers(0, 9))
def test_a_repeated_pattern_is_found_and_measured(period, seed):
    gt = natural(seed, number=1)
    pattern = 0.01 * torch.randn(1, 3, period, period, generator=torch.Generator().manual_seed(seed))
    pattern -= pattern.mean((2, 3), keepdim=True)
    x = gt + 0.1 + pattern.repeat(1, 1, SIDE // period, SIDE // period)  # the mean is no pattern
    torch.testing.assert_close(repeated_pattern(x - gt, period), pattern, rtol=0, atol=1e-6)  # float32 of values of 1
    step = (gt.diff(dim=2).abs().mean() + gt.diff(dim=3).abs().mean()) / 2 + 1e-3
    torch.testing.assert_close(grid_distance(x, gt, period), (pattern / step).square().mean(), rtol=1e-4, atol=1e-6)


def test_equal_images_have_no_distance_and_patches_have():
    gt = natural()
    assert grid_distance(gt, gt, 4) == 0
    half = (gt + in_patches(gt, 4)) / 2
    assert 0.01 < grid_distance(half, gt, 4) < grid_distance(in_patches(gt, 4), gt, 4)
    assert grid_distance(half, gt, 4) > 5 * grid_distance(half, gt, 3)  # of its own period only


def test_a_repeated_pattern_does_not_hide_borders():
    gt = natural()
    half = (gt + in_patches(gt, 4)) / 2
    lines = torch.zeros(3, 4, 4)
    lines[:, :, 1::2] = 0.05  # differences within patches, too
    hidden = half + lines.repeat(1, SIDE // 4, SIDE // 4)
    assert grid_distance(hidden, gt, 4) > 1.1 * grid_distance(half, gt, 4)  # 1.02 times if it did


def test_noise_in_a_flat_image_is_hardly_a_grid():
    gt = torch.full((1, 3, SIDE, SIDE), 0.5)
    noise = 0.002 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(0))  # half a grey level
    assert grid_distance(gt + noise, gt, 4) < 0.1
    assert relative_differences(gt, 4).eq(1).all()


def test_each_image_counts_by_itself():
    gt = natural()
    x = (gt + in_patches(gt, 4)) / 2
    each = torch.stack([grid_distance(x[i : i + 1], gt[i : i + 1], 4) for i in range(2)])
    torch.testing.assert_close(grid_distance(x, gt, 4), each.mean())
    # In an image of a tenth of the contrast it is the same, but for the quarter of a grey level.
    torch.testing.assert_close(grid_distance(x / 10, gt / 10, 4), each.mean(), rtol=0.4, atol=0)


def test_its_gradient_leads_away_from_patches():
    gt = natural()
    x = ((gt + in_patches(gt, 4)) / 2).requires_grad_()
    before = grid_distance(x, gt, 4)
    before.backward()
    assert grid_distance(x - 0.5 * x.grad, gt, 4) < before


@pytest.mark.parametrize(("size", "period"), [((48, 48), 5), ((48, 46), 4), ((4, 48), 4), ((48, 48), 1)])
def test_other_sizes_are_refused(size, period):
    images = torch.rand(1, 3, *size)
    with pytest.raises(InputError, match=f"multiples of grid_period, .* got {size[0]}x{size[1]} and {period};"):
        grid_distance(images, images, period)

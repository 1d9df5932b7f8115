"""Distance between the blocking artifacts of two images: a loss for networks that predict patches (PixelShuffle)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bidiffsr_arch.errors import InputError

FLAT = 1e-3  # a quarter of a grey level: a flat image has no grid, and nothing is divided by 0


def relative_differences(images: Tensor, period: int) -> Tensor:
    """Mean absolute difference of neighbouring pixels at each position of a period, relative to that of all positions.

    Before the division, the value at the border of two blocks is the blockiness of Wang, Sheikh and Bovik (ICIP 2002).

    Args:
        images: (N, C, H, W), H and W multiples of the period, and at least two of them.
    Returns:
        (N, 2, period): along H and along W; the first position is the border between two periods. Images without a grid
        have values near 1.
    """
    lines = [images.diff(dim=dim).abs().mean((1, 5 - dim))[:, period - 1 :] for dim in (2, 3)]
    positions = torch.stack([line.unflatten(1, (-1, period)).mean(1) for line in lines], 1) + FLAT
    return positions / positions.mean(2, keepdim=True)


def repeated_pattern(error: Tensor, period: int) -> Tensor:
    """What all periods of an error (N, C, H, W) have in common: its mean at each position, (N, C, period, period)."""
    pattern = F.pixel_unshuffle(error, period).mean((2, 3)).unflatten(1, (-1, period, period))
    return pattern - pattern.mean((2, 3), keepdim=True)


def grid_distance(x: Tensor, gt: Tensor, period: int) -> Tensor:
    """How much x shows a grid of this period that gt does not; 0 for equal images.

    The sum of two mean squares. The first is of the difference of `relative_differences`, from which a repeated pattern
    is subtracted, since it could hide them. The second is of `repeated_pattern`, relative to gt's mean difference of
    neighbouring pixels. Both are computed per image, so that a faint grid in a smooth image counts as much as a strong
    one in a texture. In whole photographs a grid of 4 x 4 pixels is visible from about 0.02.

    Args:
        x, gt: (N, C, H, W) in [0, 1], H and W multiples of the period, and at least two of them.
        period: side of a patch in pixels, at least 2; a patch begins at the first pixel.
    Raises:
        InputError: they are not.
    """
    height, width = x.shape[2:]
    if period < 2 or height % period or width % period or min(height, width) < 2 * period:
        raise InputError(
            "expected height and width to be multiples of grid_period, at least 2 of them, and grid_period at least 2, "
            f"got {height}x{width} and {period}; use the network's patch_size"
        )
    pattern = repeated_pattern(x - gt, period)
    repeated = pattern.detach().repeat(1, 1, height // period, width // period)
    differences = relative_differences(x - repeated, period) - relative_differences(gt, period)
    scale = (gt.diff(dim=2).abs().mean((1, 2, 3)) + gt.diff(dim=3).abs().mean((1, 2, 3))) / 2 + FLAT
    return differences.square().mean() + (pattern / scale[:, None, None, None]).square().mean()

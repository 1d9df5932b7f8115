"""How much of a grid an image shows that another does not, as a loss of networks that predict patches."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bidiffsr_arch.errors import InputError

FLAT = 1e-3  # a quarter of a grey level, added to means by which is divided


def relative_steps(images: Tensor, period: int) -> Tensor:
    """Mean absolute difference of neighbouring pixels at each position of a period, relative to that of all positions.

    At the border of two blocks it is the measure of blocking of Wang, Sheikh and Bovik (ICIP 2002).

    Args:
        images: (N, C, H, W), H and W at least two periods.
    Returns:
        (N, 2, period): along H and along W; the first position is the border between two periods. Images without a grid
        have values near 1.
    """
    lines = [images.diff(dim=dim).abs().mean((1, 5 - dim))[:, period - 1 :] for dim in (2, 3)]
    whole = [line[:, : line.shape[1] // period * period].unflatten(1, (-1, period)).mean(1) for line in lines]
    steps = torch.stack(whole, 1)
    return steps / (steps.mean(2, keepdim=True) + FLAT)


def repeated_pattern(error: Tensor, period: int) -> Tensor:
    """What all periods of an error (N, C, H, W) have in common: its mean at each position, (N, C, period, period)."""
    pattern = F.pixel_unshuffle(error, period).mean((2, 3)).unflatten(1, (-1, period, period))
    return pattern - pattern.mean((2, 3), keepdim=True)


def grid_distance(x: Tensor, gt: Tensor, period: int) -> Tensor:
    """How much x shows a grid of this period that gt does not: 0 for equal images, about 0.03 for a grid that one sees.

    The sum of two mean squares: of the difference of `relative_steps`, after a repeated pattern, which could hide them,
    has been subtracted, and of the `repeated_pattern` in units of gt's mean difference of neighbouring pixels. Each
    image counts by itself, so that a faint grid in a smooth image is as bad as a strong one in a texture.

    Args:
        x, gt: (N, C, H, W) in [0, 1], H and W multiples of the period, and at least two of them.
        period: side of a patch in pixels, at least 2; a patch begins at the first pixel.
    Raises:
        InputError: they are not.
    """
    height, width = x.shape[2:]
    if period < 2 or height % period or width % period or min(height, width) < 2 * period:
        raise InputError(f"expected a grid's period of at least 2 that divides {height}x{width} pixels, got {period}")
    pattern = repeated_pattern(x - gt, period)
    repeated = pattern.detach().repeat(1, 1, height // period, width // period)
    steps = relative_steps(x - repeated, period) - relative_steps(gt, period)
    scale = (gt.diff(dim=2).abs().mean((1, 2, 3)) + gt.diff(dim=3).abs().mean((1, 2, 3))) / 2 + FLAT
    return steps.square().mean() + (pattern / scale[:, None, None, None]).square().mean()

"""GroupNorm as one gain and one bias a channel, from sums that other passes have gathered."""

import numpy as np
from torch import nn

from bidiffsr_arch.packed.layout import pad_last


class GroupNorm:
    """``y = gain * x + bias`` with gain and bias from the sums of x. Padding channels get 0 and 0, so they stay 0.

    Args:
        groups: number of groups of neighbouring channels.
        weight, bias: float32 (C,).
    """

    def __init__(self, groups: int, eps: float, weight: np.ndarray, bias: np.ndarray) -> None:
        self.groups, self.eps = groups, eps
        self.weight, self.bias = weight, bias
        self.channels = len(weight)

    @classmethod
    def of(cls, module: nn.GroupNorm, weight: np.ndarray, bias: np.ndarray) -> "GroupNorm":
        return cls(module.num_groups, module.eps, weight, bias)

    def __call__(self, sums: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """Gain and bias, float32 (padded C,) each.

        Args:
            sums: float32 (parts, 2, padded C), sums of values and of squares. Parts are short, and are added up in
                float64.
            pixels: how many pixels were summed.
        """
        totals = sums.sum(0, dtype=np.float64)[:, : self.channels].reshape(2, self.groups, -1).sum(2)
        mean, square = totals / (pixels * (self.channels // self.groups))
        deviation = np.sqrt(np.maximum(square - mean * mean, 0) + self.eps)
        each = self.channels // self.groups
        gain = self.weight / np.repeat(deviation, each)
        bias = self.bias - np.repeat(mean, each) * gain
        return pad_last(gain.astype(np.float32)), pad_last(bias.astype(np.float32))

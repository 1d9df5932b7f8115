"""GroupNorm's parameters; `gain * x + bias` with numbers from the sums of x is made of them by a backend."""

from typing import NamedTuple

import numpy as np


class GroupNorm(NamedTuple):
    """groups: of neighbouring channels. weight, bias: float32 (C,)."""

    groups: int
    eps: float
    weight: np.ndarray
    bias: np.ndarray

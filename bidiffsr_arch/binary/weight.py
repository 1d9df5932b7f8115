"""Rules that turn a real-valued convolution weight into ``scale * ±1``: one row of `WEIGHTS` per method.

The gradient with respect to the weight is that of the sign alone: it is not multiplied by the scale, and the scale
receives none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bidiffsr_arch.binary.sign import SURROGATES

FILTER_DIMS = (1, 2, 3)


def one(v: Tensor) -> Tensor:
    """``1``."""
    return v.new_ones((1, 1, 1))


def layer_mean(v: Tensor) -> Tensor:
    """``mean|v|`` over the layer."""
    return v.abs().mean().reshape(1, 1, 1)


def filter_mean(v: Tensor) -> Tensor:
    """``mean|v|`` over each filter."""
    return torch.linalg.vector_norm(v, 1, FILTER_DIMS).div(v[0].numel()).reshape(-1, 1, 1)


def filter_power(v: Tensor) -> Tensor:
    """``2^round(log2 mean|v|)`` over each filter."""
    return torch.exp2(torch.round(torch.log2(filter_mean(v))))


def unchanged(weight: Tensor) -> Tensor:
    """``w``."""
    return weight


def standardise(weight: Tensor) -> Tensor:
    """``(w - mean) / std`` of each filter, with the unbiased standard deviation; gradients flow through both."""
    v = weight - weight.mean(FILTER_DIMS, keepdim=True)
    return v / v.std(FILTER_DIMS, keepdim=True)


@dataclass(frozen=True)
class WeightRule:
    """``scale(v) * sign(v)`` with ``v = prepare(w)``.

    Attributes:
        prepare: maps the weight (C_out, C_in, k, k) to v, the same shape, with gradients.
        scale: maps v to positive factors of the filters' outputs, (C_out, 1, 1) or (1, 1, 1).
        surrogate: gradient of the sign with respect to v, a key of `SURROGATES`.
    """

    prepare: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor], Tensor]
    surrogate: str

    def __post_init__(self) -> None:
        if self.surrogate not in SURROGATES:
            raise ValueError(f"expected surrogate in {sorted(SURROGATES)}, got {self.surrogate}")


WEIGHTS: dict[str, WeightRule] = {
    "sign": WeightRule(unchanged, one, "clip"),  # Hubara et al. 2016
    "layer_mean": WeightRule(unchanged, layer_mean, "straight"),  # Zhou et al. 2016, eq. 8
    "channel_mean": WeightRule(unchanged, filter_mean, "clip"),  # Rastegari et al. 2016, eq. 6
    "standardised": WeightRule(standardise, filter_power, "ede"),  # Qin et al. 2020, eq. 7 and 9
}

"""Time embeddings of all ResBlocks of a diffusion UNet, computed with one matrix product."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeTable:
    """Sinusoid, two linear layers with Swish between them, and each ResBlock's ``Linear(activation(embedding))``.

    Args:
        state: packed tensors.
        sinusoid: from (B,) to (B, C).
        embedding: name of the Sequential in which the linear layers are number 1 and 3.
        linears: name of each ResBlock's linear layer, by the name of the ResBlock.
        activation: before the ResBlocks' linear layers.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        sinusoid: nn.Module,
        embedding: str,
        linears: Mapping[str, str],
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        self.sinusoid, self.activation, self.names = sinusoid, activation, list(linears)
        self.embedding = [_linear(state, f"{embedding}.{i}") for i in (1, 3)]
        parts = [_linear(state, linear) for linear in linears.values()]
        self.sizes = [len(bias) for _, bias in parts]
        self.blocks = torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])

    def __call__(self, time: Tensor) -> list[dict[str, np.ndarray]]:
        """The embedding of each ResBlock for each timestep of (B,): float32 (C,) by name of the ResBlock."""
        first, second = self.embedding
        embedding = F.linear(F.silu(F.linear(self.sinusoid(time.float()), *first)), *second)
        added = F.linear(self.activation(embedding), *self.blocks)
        return [dict(zip(self.names, (part.numpy() for part in row.split(self.sizes)), strict=True)) for row in added]


def _linear(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]

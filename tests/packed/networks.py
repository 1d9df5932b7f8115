"""Networks for tests of packed inference."""

import torch
from torch import nn


def randomized(network: nn.Module) -> nn.Module:
    """Parameters and statistics as if trained: nothing is 0 or equal to its neighbour."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.is_floating_point() or name.endswith("progress"):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.data = 20 + noise.abs()
        elif tensor.dim() <= 2:
            tensor.data += 0.1 * noise
        else:
            tensor.data = noise * tensor.data.abs().mean().clamp(min=1e-3)
    return network.eval()


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root of the mean square of a difference."""
    return (a.double() - b.double()).square().mean().sqrt().item()

"""Training on bits: the forward pass of 1-bit convolutions by XOR and popcount, on a CPU.

A convolution of ±1 gives whole numbers, so this gives the same to the last bit, in a fraction of the time. The backward
pass convolves real gradients and stays as it is.
"""

import importlib.util

import torch
from torch import Tensor, nn

from bidiffsr_arch.binary.conv import BinaryWeightConv2d


@torch.library.custom_op(
    "bidiffsr_arch::popcount_conv",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? shift, Tensor positive, Tensor scale) -> Tensor",
)
def popcount_conv(x: Tensor, shift: Tensor | None, positive: Tensor, scale: Tensor) -> Tensor:
    """``scale * conv(sign(x + shift), ±1)``, zero padding (a padded tap adds 0), stride 1.

    An operator of its own, since `torch.compile` cannot look into Numba's kernels.

    Args:
        x: (B, C_in, H, W), float32 or shorter floats.
        shift: (B, C_in, 1, 1) or (1, C_in, 1, 1), or None.
        positive: bool (C_out, C_in, k, k), True for +1; k is 1 or odd.
        scale: float32 (C_out, 1, 1) or (1, 1, 1).
    Returns:
        (B, C_out, H, W), float32.
    """
    from bidiffsr_arch.packed.kernels.compile import as_many_threads_as_torch
    from bidiffsr_arch.packed.kernels.planes import bits_of, count_planes, weights_of

    as_many_threads_as_torch()
    filters, taps, radius = len(positive), positive[0].numel(), positive.shape[-1] // 2
    z = _result(x, filters)
    shifts = x.new_zeros(1, x.shape[1]) if shift is None else shift.flatten(1)
    factors = scale.detach().flatten().expand(filters).contiguous()
    bits = bits_of(x.detach().float().contiguous().numpy(), shifts.detach().float().contiguous().numpy(), radius)
    weights = weights_of(positive.contiguous().numpy())
    count_planes(bits, *weights, factors.numpy(), taps, z.numpy())
    return z


@popcount_conv.register_fake
def _(x: Tensor, shift: Tensor | None, positive: Tensor, scale: Tensor) -> Tensor:
    return _result(x, len(positive))


def _result(x: Tensor, filters: int) -> Tensor:
    return x.new_empty((x.shape[0], filters, *x.shape[2:]), dtype=torch.float32)


def train_on_bits(network: nn.Module) -> None:
    """Let the 1-bit convolutions of a network on the CPU be counted by popcount, if Numba is installed."""
    if importlib.util.find_spec("numba") is None:
        return
    for module in network.modules():
        if isinstance(module, BinaryWeightConv2d):
            module.counter = torch.ops.bidiffsr_arch.popcount_conv.default

"""Feeding a layer something that is cheaper to make twice than to keep for the backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor


def feed(make: Callable[[], Tensor], layer: Callable[[Tensor], Tensor], *, again: bool = True) -> Tensor:
    """``layer(make())``; a layer that keeps its input for the backward pass keeps nothing, and has it made again.

    Args:
        make: gives the same to the last bit each time, and keeps what it needs for that, which must not be changed.
        again: false for the plain ``layer(make())``: a checkpoint sees nothing of what is kept here.
    """
    h = make()
    # The compiler decides by itself what is made again.
    if not again or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return layer(h)
    address, shape = h.data_ptr(), h.shape

    def keep(tensor: Tensor) -> Tensor | None:
        return None if tensor.data_ptr() == address and tensor.shape == shape else tensor

    def find(kept: Tensor | None) -> Tensor:
        return make() if kept is None else kept

    with torch.autograd.graph.saved_tensors_hooks(keep, find):
        return layer(h)

"""Recompute a layer's input in the backward pass instead of storing it."""

from collections.abc import Callable

import torch
from torch import Tensor


def with_recomputed_input(
    compute: Callable[[], Tensor], layer: Callable[[Tensor], Tensor], *, enabled: bool = True
) -> Tensor:
    """``layer(compute())``; if autograd wants to store the layer's input, it calls ``compute()`` again instead.

    Args:
        compute: cheap, with bit-identical results. The tensors that it uses stay in memory and must not be changed in
            place.
        enabled: if false, just ``layer(compute())``. Needed inside `torch.utils.checkpoint`, which cannot track tensors
            that are recomputed here.
    """
    h = compute()
    # torch.compile decides by itself what to recompute; torch.jit.trace would record the recomputation.
    if not enabled or torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_grad_enabled():
        return layer(h)
    address, shape = h.data_ptr(), h.shape

    def pack(tensor: Tensor) -> Tensor | None:
        return None if tensor.data_ptr() == address and tensor.shape == shape else tensor

    def unpack(stored: Tensor | None) -> Tensor:
        return compute() if stored is None else stored

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return layer(h)

"""Updating parameters during the backward pass, so that their gradients are never all in memory at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn, optim

from bidiffsr_arch.training.group_parameters import GroupParameters

# Optimizers that update each element independently: updating parameters in groups gives identical results.
ELEMENTWISE = (optim.Adam, optim.AdamW)
# Elements that are updated together: each call of the optimizer has a fixed cost, above all on a GPU.
AT_LEAST = 2**22


def can_update_early(network: nn.Module, optimizer: optim.Optimizer) -> bool:
    """Whether parameters can be updated during the backward pass.

    A network declares with its attribute ``early_updates`` that each parameter receives its gradient once per backward
    pass and is not needed in it afterwards. The optimizer must update each element independently.
    """
    return getattr(network, "early_updates", False) and type(optimizer) in ELEMENTWISE


@contextmanager
def early_updates(optimizer: optim.Optimizer, groups: GroupParameters) -> Iterator[None]:
    """During one backward pass, update parameters and free their gradients once `AT_LEAST` elements have gradients.

    The caller's ``optimizer.step()`` updates the rest. All gradients must be None before, and nothing else may need
    them: no gradient scaler, no norm of all gradients, no other process.
    """
    ready: list[Tensor] = []

    def update(parameter: Tensor) -> None:
        groups.split_gradient(parameter)
        ready.append(parameter)
        if sum(p.numel() for p in ready) >= AT_LEAST:
            optimizer.step()
            groups.clear_gradients(ready)
            ready.clear()

    handles = [p.register_post_accumulate_grad_hook(update) for p in groups.leaves(optimizer) if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

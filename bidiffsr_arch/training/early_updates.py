"""Updating parameters during the backward pass, so that their gradients are never all in memory at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn, optim

from bidiffsr_arch.training.group_parameters import GroupParameters

# Their updates of one parameter do not depend on the others: which ones are updated together changes no bit.
ELEMENTWISE = (optim.Adam, optim.AdamW)
# Elements with gradients from which an update pays: each one has costs of its own, on a GPU above all.
AT_LEAST = 2**22


def can_update_early(network: nn.Module, optimizer: optim.Optimizer) -> bool:
    """Whether parameters can be updated during the backward pass.

    A network says by its attribute ``early_updates`` that in one backward pass each parameter gets its gradient once,
    and that its value is not needed afterwards; the optimizer must treat each element alone.
    """
    return getattr(network, "early_updates", False) and type(optimizer) in ELEMENTWISE


@contextmanager
def early_updates(optimizer: optim.Optimizer, groups: GroupParameters) -> Iterator[None]:
    """For one backward pass: as soon as `AT_LEAST` elements have gradients, their parameters are updated and the
    gradients freed. What is left at the end is left for the caller's own ``optimizer.step()``.

    All gradients must be None before, and nothing else may need them: no scaler, no norm of all of them, no other
    process.
    """
    ready: list[Tensor] = []

    def update(parameter: Tensor) -> None:
        groups.hand_gradient(parameter)
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

"""Updating parameters while the backward pass is still on its way, so that never all gradients are there at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn, optim

# They look at each parameter alone: it makes no difference to any bit which ones are updated together.
ELEMENTWISE = (optim.Adam, optim.AdamW)
# Elements with gradients that make an update worth while: every update has costs of its own, on a GPU above all.
AT_LEAST = 2**22


def can_update_early(network: nn.Module, optimizer: optim.Optimizer) -> bool:
    """Whether a network says of itself, by its attribute ``early_updates``, that in one backward pass each parameter
    gets its gradient once, and that its value is not needed after that; and whether the optimizer is known not to look
    at several parameters together."""
    return getattr(network, "early_updates", False) and type(optimizer) in ELEMENTWISE


@contextmanager
def early_updates(optimizer: optim.Optimizer) -> Iterator[None]:
    """For one backward pass: as soon as `AT_LEAST` elements have gradients, their parameters are updated and the
    gradients freed. What is left at the end is left for the caller's own ``optimizer.step()``.

    All gradients must be None before, and nobody else may need them: neither a scaler or a norm of all of them, nor
    another process.
    """
    ready: list[Tensor] = []

    def update(parameter: Tensor) -> None:
        ready.append(parameter)
        if sum(p.numel() for p in ready) >= AT_LEAST:
            optimizer.step()
            for updated in ready:
                updated.grad = None
            ready.clear()

    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    handles = [p.register_post_accumulate_grad_hook(update) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Updating parameters while the backward pass is still on its way, so that never all gradients are there at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, optim

# Those that look at each parameter alone: in which order, and in how many calls, makes no difference to any bit.
ONE_BY_ONE = (
    *(optim.Adadelta, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax, optim.ASGD),
    *(optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD),
)
# Elements: each update has costs of its own, above all many small kernels' on a GPU.
AT_LEAST = 2**22


def one_by_one(optimizer: optim.Optimizer) -> bool:
    """Whether an optimizer is known to treat every parameter for itself."""
    return type(optimizer) in ONE_BY_ONE


@contextmanager
def updated_meanwhile(optimizer: optim.Optimizer) -> Iterator[None]:
    """In a single backward pass meanwhile, parameters are updated as soon as `AT_LEAST` elements have gradients, which
    are freed at once. The last ones are left for the caller's own ``optimizer.step()``.

    Gradients must be None before, and nobody else may need them: neither a scaler or a norm of all of them, nor another
    process. A parameter has its gradient when nothing in the backward pass needs its value any more.
    """
    ready = 0

    def update(parameter: Tensor) -> None:
        nonlocal ready
        ready += parameter.numel()
        if ready >= AT_LEAST:
            optimizer.step()
            optimizer.zero_grad()
            ready = 0

    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    handles = [p.register_post_accumulate_grad_hook(update) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

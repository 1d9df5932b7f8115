"""The states of the random generators of torch, Python and numpy, as data that torch's safe loader reads."""

import inspect
import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The random states of this process: torch's on the CPU and on each GPU, Python's and numpy's."""
    state: Any = np.random.get_state()
    name, words, *rest = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (name, words.tolist(), *rest),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore `random_states`; those of GPUs only if their number is the same."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(states["numpy"]))


# Patterns in a model's source that indicate random state of its own, which training states do not contain.
OWN_STATE = {
    "queue_lr": "a pool of earlier training pairs",
    "torch.Generator(": "a generator of its own",
    "random.Random(": "a generator of its own",
    "RandomState(": "a generator of its own",
    "default_rng(": "a generator of its own",
}


def own_random_state(model: type) -> str | None:
    """A description of the random state that a model class of BasicSR or a plugin has of its own; None if it has
    none."""
    for kind in model.__mro__:
        if kind.__module__.partition(".")[0] in ("builtins", __name__.partition(".")[0]):
            continue
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError):  # a class without a file
            continue
        if found := next((words for text, words in OWN_STATE.items() if text in source), None):
            return found
    return None

"""The states of the random generators of torch, Python and numpy, as data that torch's safe loader reads."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states at the end of the context."""
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)

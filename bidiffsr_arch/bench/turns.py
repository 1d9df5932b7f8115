"""Times of several things that take turns, so that all meet the same load of the machine."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(steps: Mapping[Any, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[Any, float]:
    """Median seconds of each step; they take turns, after one round that does not count."""
    times: dict[Any, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}

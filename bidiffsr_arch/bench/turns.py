"""Times of interleaved functions, so that changes in the load of the machine affect all of them alike."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(steps: Mapping[Any, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[Any, float]:
    """Median seconds of each function over `rounds` interleaved rounds, after one warm-up round."""
    times: dict[Any, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}

"""SIGTERM and SIGINT (Ctrl-C) as requests to stop training after saving a state.

Signals are recorded here; the model checks for them between iterations, when a state can be saved.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_received: list[int] = []  # signals received; the first one counts
_watching: list[bool] = []


def requested_signal() -> int:
    """The number of the first received signal, 0 for none."""
    return _received[0] if _received else 0


def watching() -> bool:
    """Whether signals are being recorded."""
    return bool(_watching)


@contextmanager
def saving_on_signals() -> Iterator[None]:
    """Inside the context, a signal requests a stop, and a second one ends the process at once."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        signal.signal(number, before[number])
        name = signal.Signals(number).name
        print(f"{name}: saving a state after this iteration; repeat to stop at once", file=sys.stderr, flush=True)

    _watching.append(True)
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        _end_workers()
        _watching.clear()
        _received.clear()
        for number in SIGNALS:
            signal.signal(number, before[number])


def ignore_signals(worker_id: int) -> None:
    """Ignore signals in a loader's worker: they reach the whole process group, and the main process reacts."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill loader workers of a prefetching thread: they ignore SIGTERM and would outlive the process."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler reports the end of a worker as an error
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, before)

"""Leave training with a saved state when a cluster or a user asks to: SIGTERM, SIGINT (Ctrl-C).

A signal is noted down here; the model looks between two iterations, where a state can be saved.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_asked: list[int] = []  # signals that came, of which the first counts
_watching: list[bool] = []


def asked() -> int:
    """The signal that asked to stop, 0 for none."""
    return _asked[0] if _asked else 0


def watching() -> bool:
    """Whether signals are noted down at present."""
    return bool(_watching)


@contextmanager
def saving_on_signals() -> Iterator[None]:
    """Inside, a signal asks training to stop; a second one ends the process at once, as every signal did before."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        _asked.append(number)
        signal.signal(number, before[number])
        name = signal.Signals(number).name
        print(f"{name}: saving a state after this iteration; again to stop at once", file=sys.stderr, flush=True)

    _watching.append(True)
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        _end_workers()
        _watching.clear()
        _asked.clear()
        for number in SIGNALS:
            signal.signal(number, before[number])


def ignore_signals(worker_id: int) -> None:
    """Let a loader's worker live on when a terminal or a cluster signals the whole group: the main process decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End loader workers that a prefetching thread still holds; ignoring SIGTERM, they would outlast the exit."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a worker's end for an error
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, before)

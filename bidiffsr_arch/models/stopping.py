"""Leave training with a saved state when a cluster or a user asks to: SIGTERM, SIGINT (Ctrl-C)."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_asked: list[int] = []  # signals that came, of which the first counts


def asked() -> int:
    """The signal that asked to stop, 0 for none."""
    return _asked[0] if _asked else 0


@contextmanager
def saving_on_signals() -> Iterator[None]:
    """Inside, a signal is noted down for the model, which saves a state after the running iteration and leaves.

    A second one ends the process at once, as every signal did before.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        _asked.append(number)
        signal.signal(number, before[number])
        print(f"{signal.Signals(number).name}: saving a state after this iteration; again to stop at once",
              file=sys.stderr, flush=True)  # fmt: skip

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        _asked.clear()
        for number in SIGNALS:
            signal.signal(number, before[number])

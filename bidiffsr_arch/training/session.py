"""The state of one training run beyond its option file.

BasicSR passes its options, a dictionary, from function to function; a `Session` is the only entry this package adds.
"""

from dataclasses import dataclass, field
from typing import Any

from bidiffsr_arch.training.retention import Retention
from bidiffsr_arch.training.sample_order import FIRST, Order, SampleIndex

KEY = "session"


@dataclass
class Session:
    """State of a training run, stored as ``opt["session"]`` when options are parsed.

    Attributes:
        options: the options that affect training, see `option_changes.training_options`.
        seed_is_drawn: whether ``manual_seed`` was drawn because the option file has none.
        strict: whether to refuse resuming with changed options.
        changes: options that have changed since the state that is resumed: {key: (then, now)}.
        start: the first sample of this run.
        order: the order of samples; None if the model was not built by BasicSR's trainer.
        retention: decides which checkpoints are kept; None likewise.
        iteration: the last completed iteration.
        saved: the last iteration with a checkpoint, 0 for none.
        networks: SHA-256 of the last saved network files, by label.
        random: the random states before the current validation.
    """

    options: dict[str, Any] = field(default_factory=dict, repr=False)
    seed_is_drawn: bool = False
    strict: bool = False
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    start: SampleIndex = FIRST
    order: Order | None = None
    retention: Retention | None = field(default=None, repr=False)
    iteration: int = 0
    saved: int = 0
    networks: dict[str, str] = field(default_factory=dict, repr=False)
    random: dict[str, Any] | None = field(default=None, repr=False)


def session_of(opt: dict[str, Any]) -> Session:
    """The session in BasicSR's options; created if the model was built without BasicSR's trainer."""
    return opt.setdefault(KEY, Session())

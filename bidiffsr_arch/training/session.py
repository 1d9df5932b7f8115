"""What one run of BasicSR's trainer knows beyond its option file.

BasicSR hands its options, a dictionary, from function to function; a `Session` is the one entry that this package adds.
"""

from dataclasses import dataclass, field
from typing import Any

from bidiffsr_arch.training.retention import Retention
from bidiffsr_arch.training.sample_order import FIRST, Order, SampleIndex

KEY = "session"


@dataclass
class Session:
    """Kept as ``opt["session"]`` from the parsing of options on.

    Attributes:
        options: the options that a training depends on, see `option_changes.training_options`.
        seed_is_drawn: whether ``manual_seed`` was drawn, not given.
        strict: whether to refuse resuming with other options.
        changes: which of `options` have changed since the state that is resumed from: {key: (then, now)}.
        start: the first sample that this run trains on.
        order: which samples are trained on; None where the model was not built by BasicSR's trainer.
        retention: which checkpoints are kept; None as before.
        iteration: the last iteration that is done.
        saved: the last iteration of which a checkpoint was saved, 0 for none.
        networks: SHA-256 of the network files that were saved last, by label.
        random: the random states before the validation that is going on.
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
    """The session in BasicSR's options; a model that is built without BasicSR's trainer gets one of its own."""
    return opt.setdefault(KEY, Session())

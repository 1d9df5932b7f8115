"""Parameters and operations of the network under validation, as BasicSR metrics."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.cost import Cost, count_cost, height_width

logger = logging.getLogger("basicsr")  # BasicSR's own, which writes to the log file of a run

_measured: ContextVar[nn.Module | None] = ContextVar("measured network", default=None)
_counted: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Cost]] = WeakKeyDictionary()


@contextmanager
def measured_network(network: nn.Module) -> Iterator[None]:
    """Let `calculate_params` and `calculate_ops` count this network inside the context."""
    token = _measured.set(network)
    try:
        yield
    finally:
        _measured.reset(token)


def calculate_params(img: Any, img2: Any = None, **kwargs: Any) -> float:
    """Parameters of the network under validation, in M, as a BasicSR metric; all arguments are ignored.

    Raises:
        InputError: no network is under validation, since the model is not a `BIDiffSRModel`.
    """
    return _measured_cost("calculate_params").params / 1e6


def calculate_ops(img: Any, img2: Any = None, input_size: Sequence[int] = (256, 256), **kwargs: Any) -> float:
    """Operations of one sampling step of the network under validation, in G, as a BasicSR metric.

    Args:
        img, img2: ignored; the cost is the same for all images.
        input_size: height and width of the network's output, multiples of the network's `multiple`.
        kwargs: other options that BasicSR passes to metrics, such as `better`; ignored.

    Raises:
        InputError: no network is under validation, since the model is not a `BIDiffSRModel`; or the network does not
            run at that size.
    """
    return _measured_cost("calculate_ops", input_size).ops / 1e9


def _measured_cost(metric: str, input_size: Sequence[int] = (256, 256)) -> Cost:
    """The cost of the network under validation, counted once per network and size."""
    network = _measured.get()
    if network is None:
        raise InputError(
            f"expected {metric} to run in the validation of a BIDiffSRModel, got another model; "
            "use `basicsr cost -opt FILE` for its network"
        )
    sizes = _counted.setdefault(network, {})
    size = height_width(input_size)
    if size not in sizes:
        sizes[size] = count_cost(network, size)
        if sizes[size].uncounted:
            names = ", ".join(sizes[size].uncounted)
            logger.warning(f"{type(network).__name__}: not counted in params and OPs: {names}")
    return sizes[size]

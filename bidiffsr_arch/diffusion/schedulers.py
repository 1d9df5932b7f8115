"""diffusers' schedulers, each imported only where it is used."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast


def diffusers_class(name: str) -> type:
    """Import a scheduler class of diffusers.

    Args:
        name: without "Scheduler".
    """
    with _without_dynamo():
        return getattr(import_module("diffusers"), f"{name}Scheduler")


def arguments(function: Callable) -> set[str]:
    """Names of the arguments of a function, or of the constructor of a class."""
    return set(inspect.signature(function).parameters)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Keep diffusers from importing torch's compiler, which takes as long as importing torch.

    diffusers marks layers of its models for `torch.compile` if the import succeeds. Schedulers have no layers.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    cast(Any, sys.modules)["torch._dynamo"] = None  # makes Python's import fail
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"]

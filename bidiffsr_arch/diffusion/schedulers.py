"""diffusers' schedulers, each imported only where it is used."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast


def diffusers_class(name: str) -> type:
    """A scheduler of diffusers, which imports a class's module when the class is asked for.

    Args:
        name: without "Scheduler".
    """
    with _without_dynamo():
        return getattr(import_module("diffusers"), f"{name}Scheduler")


def arguments(function: Callable) -> set[str]:
    """The names of a function's, or of a class's constructor's, arguments."""
    return set(inspect.signature(function).parameters)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Keep diffusers from importing torch's compiler, which takes as long as importing torch.

    diffusers marks layers of its models for `torch.compile`, and goes without where the import fails. Schedulers have
    no layers.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    cast(Any, sys.modules)["torch._dynamo"] = None  # how Python marks a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"]

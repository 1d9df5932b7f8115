"""Recognise a defective function of BasicSR by its source, and replace it in all modules that imported it."""

import inspect
import sys
from collections.abc import Callable


def contains(function: Callable, text: str) -> bool:
    """Whether the source of BasicSR's function, without patches around it, contains the defective text."""
    return text in inspect.getsource(inspect.unwrap(function))


def replace(original: Callable, patched: Callable) -> None:
    """Replace `original` by `patched` in every loaded module of BasicSR.

    `patched` keeps its own __module__: a spawned worker that unpickles it imports this package, which patches BasicSR
    there, too.
    """
    patched.__dict__["__wrapped__"] = original
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "basicsr":
            for name, value in list(vars(module).items()):
                if value is original:
                    setattr(module, name, patched)


def replace_method(owner: type, name: str, patched: Callable) -> None:
    """Replace a class's method by `patched`."""
    patched.__dict__["__wrapped__"] = vars(owner)[name]
    setattr(owner, name, patched)

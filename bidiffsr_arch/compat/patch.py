"""How a function of BasicSR is recognised as defective, and replaced wherever it has been imported by name."""

import inspect
import sys
from collections.abc import Callable


def contains(function: Callable, text: str) -> bool:
    """Whether the source of BasicSR's function (below the patches around it) has the text that makes the defect."""
    return text in inspect.getsource(inspect.unwrap(function))


def replace(original: Callable, patched: Callable) -> None:
    """Put `patched` in the place of `original` in every loaded module of BasicSR.

    `patched` keeps its own __module__: a spawned worker that unpickles it imports this package, which patches BasicSR
    there, too.
    """
    patched.__wrapped__ = original
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "basicsr":
            for name, value in list(vars(module).items()):
                if value is original:
                    setattr(module, name, patched)


def replace_method(owner: type, name: str, patched: Callable) -> None:
    """Put `patched` in the place of a class's own method."""
    patched.__wrapped__ = vars(owner)[name]
    setattr(owner, name, patched)

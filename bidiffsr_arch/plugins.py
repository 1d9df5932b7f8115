"""Packages that register networks, models, losses and data sets with BasicSR when they are imported.

They are found in the entry-point group ``basicsr.plugins``, or named by ``--plugin`` and by ``plugins:`` in an option
file.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from bidiffsr_arch.errors import InputError, typed_line

GROUP = "basicsr.plugins"

_failed: dict[str, str] | None = None
_named: list[str] = []


def load_plugins() -> None:
    """Import every package in the entry-point group; a second call does nothing.

    A plugin that cannot be imported is named in one line on stderr and skipped.
    """
    global _failed
    if _failed is not None:
        return
    _failed = {}
    for plugin in entry_points(group=GROUP):
        if error := _failure_of(plugin.load):
            package = f" of package {plugin.dist.name}" if plugin.dist else ""
            _failed[f"{plugin.name!r}{package}"] = reason = typed_line(error)
            print(f"basicsr: plugin {plugin.name!r}{package} is skipped: {reason}", file=sys.stderr)


def failed_plugins() -> dict[str, str]:
    """Plugins that could not be imported, each with the reason."""
    return dict(_failed or {})


def named_plugins() -> tuple[str, ...]:
    """Modules that `import_plugins` imported, which a spawned process has to import again."""
    return tuple(_named)


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """``--plugin MODULE``, for commands that read option files."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a package that registers networks or models, as in --plugin hat; may be given several times",
    )  # fmt: skip


def import_plugins(arguments: Iterable[str], options: Mapping[str, Any]) -> None:
    """Import the modules that a user names, such as ``hat`` or ``my_networks.archs``.

    Args:
        arguments: values of ``--plugin``, which may also be modules in the current folder.
        options: those of an option file. Modules in its ``plugins`` must be installed, since the file may come from
            someone else.
    Raises:
        InputError: a module cannot be imported; it is named.
    """
    named, listed = list(arguments), options.get("plugins") or ()
    if isinstance(listed, str) or not all(isinstance(module, str) for module in listed):
        raise InputError(f"expected plugins: to be a list of modules, as in [hat], got {listed!r}")
    for module in listed:
        _import(module)
    if named and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # permanently, because loader workers import the module, too
    for module in named:
        _import(module)


def _import(module: str) -> None:
    if error := _failure_of(lambda: import_module(module)):
        raise InputError(
            f"plugin {module} cannot be imported: {typed_line(error)}; install it, or correct its name"
        ) from error
    if module not in _named:
        _named.append(module)


def _failure_of(load: Callable[[], Any]) -> BaseException | None:
    """What importing another package raises, which may be anything; what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None

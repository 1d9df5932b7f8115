"""Packages that register networks, models, losses and data sets with BasicSR when they are imported.

They are found by the entry-point group ``basicsr.plugins``, or named by ``--plugin`` and an option file's ``plugins:``.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points

from bidiffsr_arch.errors import InputError

GROUP = "basicsr.plugins"

_failed: dict[str, str] | None = None


def load_plugins() -> None:
    """Import every package that lists itself in the entry-point group; a further call does nothing.

    A plugin that cannot be imported is named in one line on stderr, and the others are imported.
    """
    global _failed
    if _failed is not None:
        return
    _failed = {}
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except Exception as error:
            package = f" of package {plugin.dist.name}" if plugin.dist else ""
            _failed[f"{plugin.name!r}{package}"] = reason = _line(error)
            print(f"basicsr: plugin {plugin.name!r}{package} is left out: {reason}", file=sys.stderr)


def failed_plugins() -> dict[str, str]:
    """Plugins that could not be imported, each with the reason."""
    return dict(_failed or {})


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules that a user names, as ``hat.archs`` or ``my_networks``, also from the current directory.

    Raises:
        InputError: a module cannot be imported; it is named.
    """
    for module in modules:
        here = "" not in sys.path
        if here:
            sys.path.append("")
        try:
            import_module(module)
        except Exception as error:  # another package's import may raise anything
            raise InputError(
                f"plugin {module} cannot be imported: {_line(error)}; install it, or correct its name"
            ) from error
        finally:
            if here:
                sys.path.remove("")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"

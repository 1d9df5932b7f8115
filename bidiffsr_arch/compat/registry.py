"""Patches of BasicSR's registries: names that are not registered, or are registered by two packages."""

import warnings
from typing import Any

from basicsr.utils.registry import Registry

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import UnknownName, nearest
from bidiffsr_arch.plugins import failed_plugins

PACKAGE = __name__.partition(".")[0]


def unknown_names() -> bool:
    """An unknown type was a KeyError behind a misleading 'use name' line: one line lists the names that are known."""
    if not contains(Registry.get, "is not found, use name"):
        return False

    def get(self: Registry, name: str, suffix: str = "basicsr") -> Any:
        found = self._obj_map.get(str(name)) or self._obj_map.get(f"{name}_{suffix}")
        if found is not None:
            return found
        hint = nearest(str(name), self._obj_map) or "; was the package that registers it imported?"
        failed = "".join(f" Plugin {plugin} was not: {reason}." for plugin, reason in failed_plugins().items())
        raise UnknownName(f"no {self._name} named {name!r}{hint}{failed} Known: {', '.join(sorted(self._obj_map))}")

    replace_method(Registry, "get", get)
    return True


def names_of_others() -> bool:
    """A name of this package could not be registered again, as the reference does: the other class takes the name."""
    stock = Registry._do_register
    if contains(stock, "warn"):
        return False

    def _do_register(self: Registry, name: str, obj: Any, suffix: str | None = None) -> None:
        full = f"{name}_{suffix}" if isinstance(suffix, str) else name
        if _is_ours(self._obj_map.get(full)) and not _is_ours(obj):
            warnings.warn(f"{full} is registered by {obj.__module__} in place of {PACKAGE}", stacklevel=4)
            del self._obj_map[full]
        stock(self, name, obj, suffix)

    replace_method(Registry, "_do_register", _do_register)
    return True


def _is_ours(entry: Any) -> bool:
    return getattr(entry, "__module__", "").partition(".")[0] == PACKAGE

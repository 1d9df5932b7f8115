"""Names in option files that nobody has registered."""

import difflib
from typing import Any

from basicsr.utils.registry import Registry

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import InputError


def unknown_names() -> bool:
    """An unknown type was a KeyError behind a misleading 'use name' line: one line lists the names that are known."""
    if not contains(Registry.get, "is not found, use name"):
        return False

    def get(self: Registry, name: str, suffix: str = "basicsr") -> Any:
        found = self._obj_map.get(str(name)) or self._obj_map.get(f"{name}_{suffix}")
        if found is not None:
            return found
        near = difflib.get_close_matches(str(name), self._obj_map, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "was the package that registers it imported?"
        raise InputError(f"no {self._name} named {name!r}; {hint} Known: {', '.join(sorted(self._obj_map))}")

    replace_method(Registry, "get", get)
    return True

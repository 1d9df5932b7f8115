"""Checks of blocks that are arguments of a constructor or function of another package, by its signature."""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bidiffsr_arch.config.kinds import Text, Whole
from bidiffsr_arch.config.words import words
from bidiffsr_arch.errors import nearest

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
# Option types for type hints; with any other hint, any value is accepted.
KINDS = {int: Whole, float: float, bool: bool, str: Text, Sequence[int]: list[Whole]}


def wrong_arguments(
    target: Callable, block: Mapping[str, Any], place: str, *, given: Sequence[str] = (), kinds: Mapping = KINDS,
    own: Sequence[str] = ("type",), ignores_others: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Mistakes in a block of keyword arguments, one sentence each.

    Args:
        target: a class or function.
        block: its arguments by name.
        place: the block's name in messages, such as ``train: pixel_opt``.
        given: parameters that the caller passes.
        kinds: option types by name or type hint of a parameter.
        own: keys of the block that are not arguments.
        ignores_others: the target ignores its ``**kwargs``.
    """
    parameters = inspect.signature(target).parameters
    is_open = any(entry.kind is entry.VAR_KEYWORD for entry in parameters.values()) and not ignores_others
    takes = {name: entry for name, entry in parameters.items()
             if name not in given and entry.kind not in (entry.VAR_KEYWORD, entry.VAR_POSITIONAL)}  # fmt: skip
    hints = _hints(target)
    known = [*own, *takes]
    meant = set()
    for key in block if not is_open else ():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            meant.update(near)
            yield f"unknown key {key!r} in {place}:; did you mean {near[0]!r}? Known: {', '.join(sorted(known))}"
    for name in (name for name in takes if name in block):
        by_type = kinds.get(hints[name]) if name in hints else _kind_of_default(takes[name].default)
        kind = kinds.get(name, by_type)
        if kind is not None and (expected := unlike(kind, block[name])):
            yield f"expected {place}: {name} to be {expected}, got {block[name]!r}"
    lacking = [name for name, parameter in takes.items()
               if parameter.default is parameter.empty and name not in block and name not in meant]  # fmt: skip
    if lacking:
        hint = nearest(lacking[0], block, hint="; is {!r} meant?")
        yield f"expected the key(s) {', '.join(lacking)} in {place}:, found none{hint}"


def _hints(target: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # names that are imported for type checkers only, for example
        return {}


def _kind_of_default(default: Any) -> Any:
    """Without a type hint, the default determines the type; an integer default allows floats, as in eta_min=0."""
    return {int: float, float: float, bool: bool, str: Text}.get(type(default))


def unlike(kind: Any, value: Any) -> str:
    """The expected value in words if `value` is not of this type, else an empty string."""
    adapter = TypeAdapter(kind, config=STRICT)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return words(adapter.json_schema(), {})
    return ""

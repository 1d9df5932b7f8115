"""The two ways in which a command can end badly without being at fault itself."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


class InputError(ValueError):
    """Something given by the user is wrong; the message is one line: expected, got, what to do. Exit status 2."""


class CheckFailed(RuntimeError):
    """A check that the user asked for did not hold; the message is one line. Exit status 1."""


def choose(option: str, name: str, table: Mapping[str, Row]) -> Row:
    """The row `name` of a table of choices.

    Raises:
        InputError: there is no such row; the message names the option and lists what it may be.
    """
    if not isinstance(name, str) or name not in table:
        raise InputError(f"expected {option} to be one of {', '.join(map(str, table))}, got {name!r}")
    return table[name]

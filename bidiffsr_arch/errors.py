"""Exceptions that end a command with one line and an exit status instead of a traceback."""

import difflib
import signal
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Row = TypeVar("Row")
INSTALL_BASICSR = "python -m bidiffsr_arch.compat.install (docs/install.md)"


class InputError(ValueError):
    """The user's input is wrong. The message is one line: expected, got, what to do. Exit status 2."""


class UnknownName(InputError, KeyError):
    """A name that is not in a registry; also a KeyError, as BasicSR's registries raise, because plugins catch that."""

    __str__ = ValueError.__str__  # KeyError would show the message in quotes


class WeightsMissing(InputError):
    """A metric's network has no weights, or unusable ones; the message is one line that says what to do."""


class CheckFailed(RuntimeError):
    """A check requested by the user has failed. The message is one line. Exit status 1."""


class Stopped(Exception):
    """A signal stopped training, which saved a state first. Exit status: 128 + the signal's number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.exit_status = 128 + number


def install_extra(name: str) -> str:
    """How to install what an extra of pyproject.toml contains: the end of a message about a missing package."""
    return f"install the extra {name}: pip install '.[{name}]' in a clone (docs/install.md)"


def first_line(error: BaseException | None) -> str:
    """The first line of an exception's message; the name of its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def typed_line(error: BaseException | None) -> str:
    """`first_line` after the name of the exception's type, printable."""
    line, kind = first_line(error), type(error).__name__
    return printable(line if line == kind else f"{kind}: {line}")


def printable(text: str) -> str:
    """The text in one line: line breaks, control characters and bytes that are not UTF-8 are escaped.

    File names may contain them.
    """
    escaped = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of controls, surrogates and separators
    categories = map(unicodedata.category, text)
    return "".join(
        char.encode("unicode_escape").decode() if category in escaped else char
        for char, category in zip(text, categories, strict=True)
    )


def choose(option: str, name: str, table: Mapping[str, Row]) -> Row:
    """Look up `name` in a table of choices.

    Raises:
        InputError: there is no such entry; the message names the option and lists its choices.
    """
    if not isinstance(name, str) or name not in table:
        raise InputError(f"expected {option} to be one of {', '.join(map(str, table))}, got {name!r}")
    return table[name]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6, hint: str = "; did you mean {!r}?") -> str:
    """A hint at the most similar known name, empty if none has at least the similarity `cutoff`, from 0 to 1."""
    return "".join(map(hint.format, difflib.get_close_matches(name, list(map(str, known)), n=1, cutoff=cutoff)))


def raise_all(failures: Sequence[InputError]) -> None:
    """Raise one error for the failures of a batch, if there are any; if there are several, print each to stderr first.

    Raises:
        InputError: the first failure, with the number of others.
    """
    if len(failures) > 1:
        print(*(f"failed: {printable(str(failure))}" for failure in failures), sep="\n", file=sys.stderr)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise InputError(f"{failures[0]}{more}") from failures[0]

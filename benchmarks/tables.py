"""The tables that benchmarks write: Markdown under a line that says where and when they were measured."""

import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from bidiffsr_arch.files import write_bytes


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def report(
    conditions: str, head: Sequence[str], rows: Sequence[Sequence[str]], output: Path | None, append: bool = False
) -> None:
    """Print a table with its conditions, the date, the machine and torch's version, and write it to a file.

    Args:
        conditions: what was measured, and how.
        output: the file; None for no file.
        append: keep what is in the file, and add the table to it.
    """
    measured = f"{conditions}; {date.today()}, {platform.machine()}, torch {torch.__version__}."
    text = f"{measured}\n\n{markdown(head, rows)}\n"
    print(text)
    if output is not None:
        before = output.read_bytes() + b"\n" if append and output.exists() else b""
        write_bytes(output, before + text.encode())

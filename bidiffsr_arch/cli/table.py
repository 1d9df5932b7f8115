"""Aligned columns of text."""

from collections.abc import Container, Sequence


def text_table(lines: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Lines of cells as aligned text.

    Args:
        right: the numbers of the columns that are right-aligned; the others are left-aligned.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligns = [f"{'>' if number in right else '<'}{width}" for number, width in enumerate(widths)]
    return "\n".join("  ".join(map(format, line, aligns)).rstrip() for line in lines)

"""List the shipped option files, show one, or write it to a file of your own to edit.

What is shown or written is complete (a file's `base:` is merged into it), so that stock BasicSR reads it, too.
"""

import argparse
from pathlib import Path

from bidiffsr_arch.config.shipped import shipped, shipped_path
from bidiffsr_arch.config.yaml import dump_options, merged_options, read_yaml
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

EXAMPLE = "basicsr options train_BIDiffSR_x4 -o my_train.yml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a shipped option file; without it, all are listed")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it to FILE instead of showing it")
    parser.add_argument("--overwrite", action="store_true", help="FILE may exist and is replaced")


def comments_at_top(text: str) -> str:
    """The comment lines with which an option file begins."""
    lines = text.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])


def complete_text(path: Path) -> str:
    """An option file's text without `base:`; a file without one as it is, comments included."""
    text = path.read_text(encoding="utf-8")
    if "base" not in read_yaml(path):
        return text
    return comments_at_top(text) + dump_options(merged_options(path))


def run(args: argparse.Namespace) -> None:
    """List, show, or write.

    Raises:
        InputError: no such option file, or the output exists.
    """
    if args.name is None:
        if args.output:
            raise InputError("expected the NAME of the option file to write with -o; `basicsr options` lists them")
        names = shipped()
        width = max(map(len, names))
        for name in names:
            comment = comments_at_top(shipped_path(name).read_text(encoding="utf-8")).splitlines()
            print(f"{name:{width}}  {comment[0].lstrip('# ') if comment else ''}".rstrip())
        return
    text = complete_text(shipped_path(args.name))
    if args.output is None:
        print(text, end="")
        return
    target = Path(args.output).expanduser()
    if target.exists() and not args.overwrite:
        raise InputError(f"{target} exists; add --overwrite to replace it, or choose another name")
    write_bytes(target, text.encode())
    print(f"wrote {target}")

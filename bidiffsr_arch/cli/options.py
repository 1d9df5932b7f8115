"""List the shipped option files, show one, or write it to a file of your own to edit.

The output is complete (the `base:` file is merged into it), so that stock BasicSR can read it, too.

--schema prints the JSON Schema of option files, with which editors complete and check keys: write it to a file and name
that file in the first line of an option file, `# yaml-language-server: $schema=FILE`. --tables updates the option
tables of Markdown files, between the comments `<!-- options of … -->` and `<!-- end of options -->`.
"""

import argparse
import json
import os
from pathlib import Path

from bidiffsr_arch.cli.table import text_table
from bidiffsr_arch.errors import InputError

EXAMPLE = "basicsr options train_BIDiffSR_x4 -o my_train.yml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option file, the schema or tables, and the output."""
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="a shipped option file (default: list all)")
    add("--schema", action="store_true", help="print the JSON Schema of option files")
    add("--tables", nargs="+", metavar="FILE.md", help="update the option tables in these files")
    add("-o", "--output", metavar="FILE", help="write it to FILE instead of showing it")
    add("--overwrite", action="store_true", help="replace an existing FILE")


def comments_at_top(text: str) -> str:
    """The comment lines at the beginning of an option file."""
    lines = text.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])


def complete_text(path: Path) -> str:
    """The text of an option file with its `base:` merged in; the file itself, comments included, if it has no base."""
    from bidiffsr_arch.config.yaml import dump_options, merged_options, read_yaml

    text = path.read_text(encoding="utf-8")
    if "base" not in read_yaml(path):
        return text
    return comments_at_top(text) + dump_options(merged_options(path))


def run(args: argparse.Namespace) -> None:
    """List, show, or write.

    Raises:
        InputError: no such option file, arguments that do not go together, or the output exists.
    """
    choices = {"NAME": args.name, "--schema": args.schema, "--tables": args.tables}
    asked = [name for name, given in choices.items() if given]
    if len(asked) > 1:
        raise InputError(f"expected one of NAME, --schema and --tables, got {' and '.join(asked)}")
    if args.tables:
        for file in map(Path, args.tables):
            update_tables(file)
        return
    if args.schema:
        from bidiffsr_arch.config.tables import editor_schema

        text = json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"
    elif args.name:
        from bidiffsr_arch.config.shipped import shipped_path

        text = complete_text(shipped_path(args.name))
    elif args.output:
        raise InputError("expected the NAME of the option file to write with -o; `basicsr options` lists them")
    else:
        text = listing()
    if args.output is None:
        print(text, end="")
        return
    target = Path(os.path.expanduser(args.output))
    from bidiffsr_arch.files import refuse_existing, write_bytes

    refuse_existing(target, args.overwrite)
    write_bytes(target, text.encode())
    print(f"wrote {target}")


def listing() -> str:
    """The shipped option files, each with its first comment."""
    from bidiffsr_arch.config.shipped import shipped, shipped_path

    comments = {name: comments_at_top(shipped_path(name).read_text(encoding="utf-8")) for name in shipped()}
    return text_table([(name, text.partition("\n")[0].lstrip("# ")) for name, text in comments.items()]) + "\n"


def update_tables(file: Path) -> None:
    """Update the tables of a Markdown file, and print whether they have changed.

    Raises:
        InputError: no such file, or it names an unknown table.
    """
    from bidiffsr_arch.config.tables import with_tables
    from bidiffsr_arch.files import write_bytes

    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"expected a Markdown file at {file}, found none") from error
    try:
        updated = with_tables(text)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if updated != text:
        write_bytes(file, updated.encode())
    print(f"{file}: {'unchanged' if updated == text else 'updated'}")

"""The command `basicsr`: one module a subcommand, imported only when it is asked for.

A subcommand's module has a docstring (its help), `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int | None`.
"""

import argparse
import os
import sys
from importlib import import_module
from typing import NoReturn

from bidiffsr_arch.errors import CheckFailed, InputError

COMMANDS = {
    "train": ("bidiffsr_arch.cli.train", "train as an option file says"),
    "test": ("bidiffsr_arch.cli.test", "test as an option file says; --check compares with its expected numbers"),
    "upscale": ("bidiffsr_arch.cli.upscale", "enlarge pictures with trained weights"),
    "plot": ("bidiffsr_arch.cli.plot", "figures of what a network does, as PNG"),
    "pack": ("bidiffsr_arch.cli.pack", "pack a trained network into bits, for fast inference"),
    "bench": ("bidiffsr_arch.cli.bench", "time packed inference against full precision on this machine"),
    "cost": ("bidiffsr_arch.cli.cost", "count parameters and operations of option files' networks"),
    "options": ("bidiffsr_arch.cli.options", "list, show or write the shipped option files"),
    "data": ("bidiffsr_arch.cli.data", "pictures to train on, and the weights of LPIPS"),
    "demo": ("bidiffsr_arch.cli.demo", "train a small network on photographs, no download, about two minutes"),
    "doctor": ("bidiffsr_arch.cli.doctor", "versions, device, cures for BasicSR, and what is registered"),
}


class OneLineParser(argparse.ArgumentParser):
    """Tells a wrong command line in one line, as every other mistake is told, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all commands, of which only `chosen` has its arguments."""
    parser = OneLineParser(
        prog="basicsr",
        description="Train and test image restoration networks with BasicSR, BI-DiffSR among them.",
        epilog="example: basicsr train -opt options/train_BIDiffSR_x4.yml",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, line) in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=line)
            continue
        module = import_module(module_name)
        subparser = commands.add_parser(
            name,
            help=line,
            description=module.__doc__,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def one_line(error: Exception) -> str:
    """The message of an error; of one that a data loader's worker passed on, only the original's message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    kind = type(error)
    return lines[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ").removeprefix(f"{kind.__qualname__}: ")


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name).

    Returns:
        The exit status: 0, 1 where a check failed, 2 for wrong input (one line on stderr), 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv[0] if argv and argv[0] in COMMANDS else None).parse_args(argv)
    try:
        return args.run(args) or 0
    except CheckFailed as error:
        print(f"basicsr: {one_line(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print(f"basicsr: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("basicsr: stopped", file=sys.stderr)
        return 130

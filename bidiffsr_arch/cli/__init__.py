"""The command `basicsr`, also called `bidiffsr`: one module per subcommand, imported when it is called.

A subcommand's module has a docstring (its help), `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int | None`. At
module level it imports only what its arguments need, and the rest in `run`: `--help` and wrong arguments are answered
without importing torch.
"""

import argparse
import io
import os
import sys
from importlib import import_module
from pathlib import PurePath
from typing import NoReturn

import bidiffsr_arch
from bidiffsr_arch.errors import CheckFailed, InputError, printable

__all__ = ["COMMANDS", "build_parser", "main"]

NAMES = ("basicsr", "bidiffsr")
COMMANDS = {
    "train": ("bidiffsr_arch.cli.train", "train a network with an option file"),
    "test": ("bidiffsr_arch.cli.test", "test a network with an option file; --check compares with expected numbers"),
    "upscale": ("bidiffsr_arch.cli.upscale", "upscale images with trained weights"),
    "web": ("bidiffsr_arch.cli.web", "upscale images on a page in the browser"),
    "plot": ("bidiffsr_arch.cli.plot", "figures of a network's layers and results, as PNG"),
    "pack": ("bidiffsr_arch.cli.pack", "pack a trained network's weights into bits, for fast inference"),
    "export": ("bidiffsr_arch.cli.export", "export a float network as ONNX or for torch.export"),
    "bench": ("bidiffsr_arch.cli.bench", "time packed inference against full precision on this machine"),
    "cost": ("bidiffsr_arch.cli.cost", "count parameters and operations of option files' networks"),
    "options": ("bidiffsr_arch.cli.options", "list, show or write the shipped option files"),
    "data": ("bidiffsr_arch.cli.data", "images to train on, and the weights of LPIPS"),
    "demo": ("bidiffsr_arch.cli.demo", "train a small network on photographs in about two minutes, without a download"),
    "doctor": ("bidiffsr_arch.cli.doctor", "print versions, device, threads, patches and registered classes"),
}


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like all other mistakes, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(chosen: str | None, name: str = NAMES[0]) -> argparse.ArgumentParser:
    """The parser of all commands; only the subparser of `chosen` has arguments.

    Args:
        chosen: the command that is called, None for none of `COMMANDS`.
        name: name of the program, one of `NAMES`.
    """
    parser = OneLineParser(
        prog=name,
        description="Train and test image restoration networks, such as BI-DiffSR, with BasicSR.",
        epilog=f"example: {name} train -opt options/train_BIDiffSR_x4.yml",
    )
    parser.add_argument("--version", action="version", version=f"bidiffsr_arch {bidiffsr_arch.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (module_name, line) in COMMANDS.items():
        if command != chosen:
            commands.add_parser(command, help=line)
            continue
        module = import_module(module_name)
        subparser = commands.add_parser(
            command,
            help=line,
            description=module.__doc__,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def program_name() -> str:
    """The name by which the user called the program; `basicsr` for ``python -m``."""
    called = PurePath(sys.argv[0]).stem
    return called if called in NAMES else NAMES[0]


def one_line(error: Exception) -> str:
    """An error's message in one line; for an error in a data loader's worker, the last line, which is the original."""
    message, kind = str(error).strip() or type(error).__name__, type(error)
    if message.startswith("Caught ") or not isinstance(error, InputError):
        message = message.splitlines()[-1]
    message = message.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ").removeprefix(f"{kind.__qualname__}: ")
    return printable(message)


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name).

    Returns:
        The exit status: 0, 1 if a check failed, 2 for wrong input (one line on stderr), 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = program_name()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may not be printable
    args = build_parser(argv[0] if argv and argv[0] in COMMANDS else None, name).parse_args(argv)
    try:
        return args.run(args) or 0
    except CheckFailed as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130

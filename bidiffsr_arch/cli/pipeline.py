"""What `basicsr train` and `basicsr test` share: BasicSR's own arguments, plugins, and handing options to BasicSR."""

import argparse
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def add_basicsr_arguments(parser: argparse.ArgumentParser) -> None:
    """BasicSR's arguments, with both spellings of the rank that launchers use."""
    parser.add_argument("-opt", required=True, metavar="FILE", help="option file (YAML)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest saved state, if there is one")
    parser.add_argument("--debug", action="store_true", help="log and validate often; the name gets the prefix debug_")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by the launcher")
    parser.add_argument(
        "--force_yml", nargs="+", metavar="KEY:KEY=VALUE", help="override options, as in train:ema_decay=0.999"
    )


@contextmanager
def basicsr_arguments(args: argparse.Namespace, options: OrderedDict | None = None) -> Iterator[None]:
    """`sys.argv` as BasicSR's parse_options expects it.

    Args:
        args: parsed `add_basicsr_arguments`.
        options: what BasicSR is to read in place of the file `args.opt`, overrides included; it gets a file of the same
            name.
    """
    argv = [f"basicsr {args.command}", "-opt", args.opt, "--launcher", args.launcher]
    argv += ["--local_rank", str(args.local_rank)]
    argv += ["--auto_resume"] * args.auto_resume + ["--debug"] * args.debug
    with tempfile.TemporaryDirectory(prefix="basicsr_") as folder:
        if options is not None:
            from bidiffsr_arch.config.option_file import dump_options

            argv[2] = str(Path(folder, Path(args.opt).name))
            Path(argv[2]).write_text(dump_options(options), encoding="utf-8")
        elif args.force_yml:
            argv += ["--force_yml", *args.force_yml]
        before, sys.argv = sys.argv, argv
        try:
            yield
        finally:
            sys.argv = before

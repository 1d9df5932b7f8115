"""Train a network with an option file, using BasicSR's trainer.

Results are written to experiments/<name>/ in the current directory, or to `path: experiments_root`. Started by
torchrun, training is distributed over its processes.

On SIGTERM and Ctrl-C, training saves a state and exits (status 143 and 130); with --auto_resume it continues exactly as
without the interruption. Options that have changed since are printed and used; a changed network is refused, and with
--strict-resume any change. --dry-run checks beforehand what would stop the training.
"""

import argparse
import os
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

from bidiffsr_arch.compat import require_basicsr
from bidiffsr_arch.config.command_line import add_basicsr_arguments
from bidiffsr_arch.errors import CheckFailed, InputError, Stopped, first_line
from bidiffsr_arch.plugins import add_plugin_argument

if TYPE_CHECKING:
    from bidiffsr_arch.config.file import AnyFile

EXAMPLE = "basicsr train -opt options/train_BIDiffSR_x4.yml --auto_resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """BasicSR's arguments and those of this command."""
    add_basicsr_arguments(parser)
    add_plugin_argument(parser)
    parser.add_argument(
        "--strict-resume", action="store_true", help="refuse to resume if options have changed, and name them"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check options, images, network, memory and disk space; train nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or check what training will need.

    Returns:
        0, or 128 + the number of the signal that stopped the training.
    Raises:
        CheckFailed: a loss is not finite, another process of the run has ended, or a dry run finds too little disk
            space.
        InputError: the option file is wrong or not for training, or BasicSR is not installed.
    """
    require_basicsr("`basicsr train`")
    from bidiffsr_arch.compat.distributed import chosen_launcher
    from bidiffsr_arch.config.file import load_options
    from bidiffsr_arch.plugins import import_plugins, load_plugins
    from bidiffsr_arch.training.option_check import check_options

    options = load_options(args.opt, args.force_yml)
    args.launcher = chosen_launcher(args.launcher)
    load_plugins()
    import_plugins(args.plugin, options)
    file = check_options(options, args.opt, is_train=True)
    if args.dry_run:
        return check_training(args, file, options)
    try:
        train(args, options)
    except Stopped as stop:
        print(f"basicsr: {stop}", file=sys.stderr)
        return stop.exit_status
    return 0


def check_training(args: argparse.Namespace, file: "AnyFile", options: OrderedDict) -> int:
    """Run `dry_run` without resuming.

    Raises:
        InputError: as `dry_run`, or a launcher is given.
        CheckFailed: as `dry_run`.
    """
    from bidiffsr_arch.cli.dry_run import dry_run

    if args.launcher != "none":
        raise InputError(f"--dry-run checks in one process; leave --launcher {args.launcher} out")
    anew = argparse.Namespace(**vars(args) | {"auto_resume": False})
    dry_run(file, options, lambda changed: train(anew, changed))
    return 0


def train(args: argparse.Namespace, options: OrderedDict) -> None:
    """Run BasicSR's training pipeline.

    Raises:
        Stopped: a signal was received; a state is saved.
        CheckFailed: another process of the run has ended.
    """
    from basicsr.train import train_pipeline
    from torch import distributed

    from bidiffsr_arch.compat.options import handed_over
    from bidiffsr_arch.training.signals import saving_on_signals

    with handed_over(args, options), saving_on_signals():
        try:
            train_pipeline(os.getcwd())
        except RuntimeError as error:
            lost = isinstance(error, distributed.DistError) or any(name in str(error) for name in ("gloo", "NCCL"))
            if not (distributed.is_initialized() and lost):
                raise
            raise CheckFailed(
                f"another process of this run ended ({first_line(error)}); its output says why; start all processes "
                "again with --auto_resume"
            ) from error

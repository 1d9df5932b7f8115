"""Train a network as an option file says, with BasicSR's trainer.

Everything is written below the current directory, in experiments/<name>/, unless the file's own
`path: experiments_root` says otherwise. With torchrun, add --launcher pytorch.

SIGTERM and Ctrl-C save a state before leaving (exit status 143 and 130); with --auto_resume training goes on as if it
had never been stopped.
"""

import argparse
import os
import sys

from bidiffsr_arch.cli.pipeline import add_basicsr_arguments, basicsr_arguments, load_plugins
from bidiffsr_arch.errors import CheckFailed, InputError, Stopped
from bidiffsr_arch.option_file import load_options
from bidiffsr_arch.stopping import saving_on_signals

EXAMPLE = "basicsr train -opt options/train_BIDiffSR_x4.yml --auto_resume"
NEEDED = ("train", "logger")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_basicsr_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train.

    Returns:
        0, or 128 + the number of the signal that training was stopped by.
    Raises:
        CheckFailed: a loss is lost, or another process of the run.
        InputError: the option file is not one for training, or wrong.
    """
    options = load_options(args.opt, args.force_yml)
    missing = [f"`{key}:`" for key in NEEDED if not options.get(key)]
    if "train" not in options["datasets"]:
        missing.append("`datasets: train:`")
    if missing:
        raise InputError(
            f"{args.opt}: expected {', '.join(missing)} to train by, found none; `basicsr test` needs none"
        )
    load_plugins()
    from basicsr.train import train_pipeline

    with basicsr_arguments(args), saving_on_signals():
        try:
            train_pipeline(os.getcwd())
        except Stopped as stop:
            print(f"basicsr: {stop}", file=sys.stderr)
            return stop.exit_status
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            reason = str(error).splitlines()[0]
            raise CheckFailed(
                f"another process of this run ended ({reason}), its own output says why; start all with --auto_resume"
            ) from error
    return 0


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether a run of many processes failed because one of the others is gone."""
    from torch import distributed

    return distributed.is_initialized() and (
        isinstance(error, distributed.DistError) or any(name in str(error) for name in ("gloo", "NCCL"))
    )

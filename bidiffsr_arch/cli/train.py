"""Train a network as an option file says, with BasicSR's trainer.

Everything is written below the current directory, in experiments/<name>/, unless the file's own
`path: experiments_root` says otherwise. With torchrun, add --launcher pytorch.
"""

import argparse
import os

from bidiffsr_arch.cli.pipeline import add_basicsr_arguments, basicsr_arguments, load_plugins
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.option_file import load_options

EXAMPLE = "basicsr train -opt options/train_BIDiffSR_x4.yml --auto_resume"
NEEDED = ("train", "logger")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_basicsr_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train.

    Raises:
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

    with basicsr_arguments(args):
        train_pipeline(os.getcwd())

"""Test a network with an option file, using BasicSR's test pipeline.

With an option file for training, the latest network of that training is tested on its validation sets.

Images and the log are written to results/<name>/ in the current directory, or to `path: results_root`. --check compares
the metrics with the `expected:` block, skips missing data sets, and exits with status 1 if a number differs by more
than its tolerance.
"""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

from bidiffsr_arch.compat import require_basicsr
from bidiffsr_arch.config.command_line import add_basicsr_arguments
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.plugins import add_plugin_argument

EXAMPLE = "basicsr test -opt options/test_Bicubic_x4.yml --check --report bicubic.xml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """BasicSR's arguments and those of --check."""
    add_basicsr_arguments(parser)
    add_plugin_argument(parser)
    parser.add_argument("--check", action="store_true", help="compare with the option file's expected: block")
    parser.add_argument("--strict", action="store_true", help="with --check: fail if a number could not be checked")
    parser.add_argument("--report", metavar="FILE", help="with --check: write a report, FILE.json or FILE.xml (JUnit)")


def run(args: argparse.Namespace) -> None:
    """Run the test, with --check the comparison, too.

    Raises:
        InputError: the option file is wrong or not for testing, or BasicSR is not installed.
        CheckFailed: a number differs from the expected one.
    """
    if not args.check and (args.strict or args.report):
        raise InputError("--strict and --report go with --check; add it")
    require_basicsr("`basicsr test`")
    from bidiffsr_arch.compat.distributed import chosen_launcher
    from bidiffsr_arch.config.file import load_options
    from bidiffsr_arch.plugins import import_plugins, load_plugins
    from bidiffsr_arch.training.option_check import check_options

    args.launcher = chosen_launcher(args.launcher)
    if args.check and args.launcher != "none":
        raise InputError(f"--check compares in one process; leave --launcher {args.launcher} out, and torchrun")
    options = load_options(args.opt, args.force_yml)
    if "train" in options["datasets"]:
        as_test(options)
    load_plugins()
    import_plugins(args.plugin, options)
    file = check_options(options, args.opt, is_train=False)
    if args.check:
        from bidiffsr_arch.cli.check import run_check

        run_check(args, file, options)
        return
    from basicsr.test import test_pipeline

    from bidiffsr_arch.compat.options import handed_over

    with handed_over(args, options):
        test_pipeline(os.getcwd())


def as_test(options: OrderedDict) -> None:
    """Change options for training, in place, into options that test the trained network."""
    del options["datasets"]["train"]
    if options.get("val"):
        options["val"].setdefault("suffix", None)
    path = options["path"]
    if path.get("pretrain_network_g") is None:
        experiment = path.get("experiments_root") or Path("experiments", options["name"])
        path["pretrain_network_g"] = str(Path(experiment, "models", "net_g_latest.pth"))

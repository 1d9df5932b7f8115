"""BasicSR's command line, for `basicsr train`, `basicsr test`, and training scripts that call BasicSR's pipelines."""

import argparse
import os


def add_basicsr_arguments(parser: argparse.ArgumentParser) -> None:
    """BasicSR's arguments, with both spellings of the rank that launchers use."""
    add = parser.add_argument
    add("-opt", required=True, metavar="FILE", help="option file (YAML)")
    add("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    add("--auto_resume", action="store_true", help="resume from the newest saved state, if there is one")
    add("--debug", action="store_true", help="log and validate often; prefix the name with debug_")
    add("--local_rank", "--local-rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0)), metavar="N",
        help="set by the launcher")  # fmt: skip
    add("--force_yml", nargs="+", metavar="KEY:KEY=VALUE", help="override options, as in train:ema_decay=0.999")


def stock_arguments(args: argparse.Namespace, file: str) -> list[str]:
    """The arguments that BasicSR's own parser gets: ``file`` holds the overrides already."""
    words = ["-opt", file, "--launcher", args.launcher, "--local_rank", str(args.local_rank)]
    return words + ["--auto_resume"] * args.auto_resume + ["--debug"] * args.debug

"""Patches of BasicSR's command line and option files."""

import argparse
import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from itertools import chain, count
from os import path as osp
from pathlib import Path

import torch
import yaml
from basicsr.utils import misc, options

from bidiffsr_arch.compat.distributed import chosen_launcher
from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.config.option_file import dump_options, load_options, read_yaml
from bidiffsr_arch.errors import InputError

# The `path:` keys that are folders of a run, each with its place below the first one.
TRAIN_FOLDERS = {
    "experiments_root": "",
    "models": "models",
    "training_states": "training_states",
    "log": "",
    "visualization": "visualization",
}
TEST_FOLDERS = {"results_root": "", "log": "", "visualization": "visualization"}


def _arguments() -> argparse.Namespace:
    """BasicSR's command line, in both spellings of the local rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-opt", required=True, help="Path to option YAML file.")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0)))
    parser.add_argument("--force_yml", nargs="+", help="Override options. Examples: train:ema_decay=0.999")
    return parser.parse_args()


def _resolved(path: str, overrides: list[str] | None) -> str:
    """A file of the same name in a temporary folder, which BasicSR reads to what `load_options` gives.

    It is the file itself, comments and all, where that is the same.
    """
    wanted = load_options(path, overrides)
    text = Path(path).expanduser().read_text(encoding="utf-8")
    try:
        # safe: load_options has refused every tag that builds more than plain data
        same = yaml.load(text, Loader=options.ordered_yaml()[0]) == wanted  # noqa: S506
    except yaml.YAMLError:
        same = False
    folder = tempfile.mkdtemp(prefix="basicsr_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder, Path(path).name)
    file.write_text(text if same else dump_options(wanted), encoding="utf-8")
    return str(file)


def command_line() -> bool:
    """Option files and --force_yml could run code, 1e-4 was a text, --local-rank unknown: they are read safely here."""
    stock = options.parse_options
    if not contains(stock, "exec(eval_str)"):
        return False

    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
        given = _arguments()
        given.launcher = chosen_launcher(given.launcher)
        file = _resolved(given.opt, given.force_yml)
        command = sys.argv
        sys.argv = [command[0], "-opt", file, "--launcher", given.launcher, "--local_rank", str(given.local_rank)]
        sys.argv += ["--auto_resume"] * given.auto_resume + ["--debug"] * given.debug
        try:
            opt, args = stock(root_path, is_train)
        finally:
            sys.argv = command  # copy_opt_file notes down what the user typed
        args.force_yml = given.force_yml
        return opt, args

    replace(stock, parse_options)
    return True


def after_parsing(check: Callable[[dict, argparse.Namespace], None]) -> None:
    """Let `check` see, and mend, what parse_options returns."""
    inner = options.parse_options

    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
        opt, args = inner(root_path, is_train)
        check(opt, args)
        return opt, args

    replace(inner, parse_options)


def own_roots() -> bool:
    """parse_options overwrites path.experiments_root and path.results_root: those of the option file are kept."""
    if not contains(options.parse_options, "opt['path']['experiments_root'] = experiments_root"):
        return False

    def keep(opt: dict, args: argparse.Namespace) -> None:
        folders = TRAIN_FOLDERS if opt["is_train"] else TEST_FOLDERS
        root = read_yaml(args.opt)["path"].get(next(iter(folders)))
        if root is not None:
            for key, place in folders.items():
                opt["path"][key] = osp.normpath(osp.join(osp.expanduser(str(root)), place))

    after_parsing(keep)
    return True


def gpus_without_cuda() -> bool:
    """num_gpu: 1 without CUDA fails deep inside torch: one line says so before anything is built."""
    if contains(options.parse_options, "is_available"):
        return False

    def refuse(opt: dict, args: argparse.Namespace) -> None:
        if opt["num_gpu"] != 0 and not torch.cuda.is_available():
            raise InputError(f"num_gpu: {opt['num_gpu']} needs CUDA, which torch does not find; set it to 0 or auto")

    after_parsing(refuse)
    return True


def missing_data() -> bool:
    """A missing data folder was found only after an earlier run's folder had been moved away: it is named at once."""
    if contains(options.parse_options, "exists"):
        return False

    def look(opt: dict, args: argparse.Namespace) -> None:
        for name, dataset in opt["datasets"].items():
            for key, place in dataset.items():
                is_place = key.startswith("dataroot") or key == "meta_info_file"
                if is_place and isinstance(place, str) and not osp.exists(place):
                    raise InputError(f"datasets: {name}: {key}: {place} does not exist (looked in {os.getcwd()})")

    after_parsing(look)
    return True


def stray_folders() -> bool:
    """make_exp_dirs makes a folder of every unknown key in path: only the run's own folders are made."""
    stock = misc.make_exp_dirs
    if not contains(stock, "'strict_load' in key"):
        return False

    def make_exp_dirs(opt: dict) -> None:
        folders = TRAIN_FOLDERS if opt["is_train"] else TEST_FOLDERS
        stock({**opt, "path": {key: opt["path"][key] for key in folders}})

    replace(stock, make_exp_dirs)
    return True


def archive_names() -> bool:
    """An earlier run's folder is renamed by the second: where one of that second is there, names are counted on."""
    stock = misc.mkdir_and_rename
    if not contains(stock, "os.rename(path, new_name)"):
        return False

    def mkdir_and_rename(path: str) -> None:
        if osp.exists(path):
            name = f"{path}_archived_{misc.get_time_str()}"
            archived = next(free for free in chain([name], (f"{name}_{n}" for n in count(2))) if not osp.lexists(free))
            print(f"Path already exists. Rename it to {archived}", flush=True)
            os.rename(path, archived)
        os.makedirs(path, exist_ok=True)

    replace(stock, mkdir_and_rename)
    return True

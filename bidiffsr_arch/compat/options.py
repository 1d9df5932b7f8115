"""Patches of BasicSR's command line and option files."""

import argparse
import atexit
import os
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from itertools import chain, count
from os import path as osp
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr import models
from basicsr.utils import misc, options
from basicsr.utils.registry import MODEL_REGISTRY

from bidiffsr_arch.compat.distributed import chosen_launcher
from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.config.command_line import add_basicsr_arguments, stock_arguments
from bidiffsr_arch.config.data import DATA_SETS, SingleDataset
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.yaml import dump_options
from bidiffsr_arch.errors import InputError

# The `path:` keys that are folders of a run, with their path relative to the first one.
TRAIN_FOLDERS = {
    "experiments_root": "",
    "models": "models",
    "training_states": "training_states",
    "log": "",
    "visualization": "visualization",
}
TEST_FOLDERS = {"results_root": "", "log": "", "visualization": "visualization"}


_handed: ContextVar[tuple[argparse.Namespace, OrderedDict] | None] = ContextVar("_handed", default=None)


@contextmanager
def handed_over(args: argparse.Namespace, wanted: OrderedDict) -> Iterator[None]:
    """Within the context, parse_options uses these arguments and options instead of reading a command line and a file.

    Args:
        args: arguments declared by `add_basicsr_arguments`; wanted: options returned by `load_options`.
    """
    token = _handed.set((args, wanted))
    try:
        yield
    finally:
        _handed.reset(token)


def handed() -> tuple[argparse.Namespace, OrderedDict] | None:
    """The arguments and options of the current `handed_over`."""
    return _handed.get()


def _from_command_line() -> tuple[argparse.Namespace, OrderedDict]:
    parser = argparse.ArgumentParser()
    add_basicsr_arguments(parser)
    args = parser.parse_args()
    args.launcher = chosen_launcher(args.launcher)
    return args, load_options(args.opt, args.force_yml)


def _readable(path: str, wanted: OrderedDict) -> str:
    """Write a file of the same name to a temporary folder, from which stock BasicSR reads `wanted`, for the
    experiment's copy.

    If stock BasicSR reads `wanted` from the original, it is copied with its comments.
    """
    text = Path(os.path.expanduser(path)).read_text(encoding="utf-8")
    try:
        same = yaml.safe_load(text) == wanted
    except (yaml.YAMLError, ValueError):
        same = False
    folder = tempfile.mkdtemp(prefix="basicsr_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder, Path(path).name)
    file.write_text(text if same else dump_options(wanted), encoding="utf-8")
    return str(file)


def _loader_of(wanted: OrderedDict) -> type:
    """A loader class for yaml.load that returns options that have already been read."""

    class Loaded:
        def __init__(self, stream: Any) -> None:
            """Ignore the stream."""

        def get_single_data(self) -> OrderedDict:
            return deepcopy(wanted)

        def dispose(self) -> None:
            """Do nothing."""

    return Loaded


def command_line() -> bool:
    """Option files and --force_yml could run code, 1e-4 was a string, --local-rank unknown: they are read safely."""
    stock = options.parse_options
    if not contains(stock, "exec(eval_str)"):
        return False

    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
        args, wanted = handed() or _from_command_line()
        lists = _without_lists(wanted)
        command, reader = sys.argv, options.ordered_yaml
        sys.argv = [command[0], *stock_arguments(args, _readable(args.opt, wanted))]
        options.ordered_yaml = lambda: (_loader_of(lists), None)
        try:
            opt, given = stock(root_path, is_train)
        finally:
            sys.argv, options.ordered_yaml = command, reader  # copy_opt_file writes the user's command line
        _restore_lists(opt, wanted)
        # with arguments that BasicSR's parser lacks, and the options before BasicSR changes them
        return opt, argparse.Namespace(**{**vars(args), **vars(given), "force_yml": args.force_yml, "options": wanted})

    replace(stock, parse_options)
    return True


def _without_lists(wanted: OrderedDict) -> OrderedDict:
    """The options without lists of folders, which stock BasicSR would treat as one folder."""
    datasets = OrderedDict(
        (phase, OrderedDict((key, value) for key, value in data.items() if not _is_list_of_roots(key, value)))
        for phase, data in wanted["datasets"].items()
    )
    return OrderedDict(wanted, datasets=datasets)


def _restore_lists(opt: dict, wanted: OrderedDict) -> None:
    for phase, data in wanted["datasets"].items():
        for key, value in data.items():
            if _is_list_of_roots(key, value):
                opt["datasets"][phase][key] = [osp.expanduser(root) for root in value]


def _is_list_of_roots(key: str, value: Any) -> bool:
    return key.startswith("dataroot_") and isinstance(value, list)


def after_parsing(check: Callable[[dict, argparse.Namespace], None]) -> None:
    """Call `check` on the result of parse_options, which it may change."""
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
        root = args.options["path"].get(next(iter(folders)))
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
    """A missing data folder was found only after an earlier run's folder had been renamed: it is reported first."""
    if contains(options.parse_options, "exists"):
        return False

    def look(opt: dict, args: argparse.Namespace) -> None:
        for name, dataset in opt["datasets"].items():
            for key, place in dataset.items():
                is_place = key.startswith("dataroot") or key in ("meta_info", "meta_info_file")
                for one in place if isinstance(place, list) else [place]:
                    if is_place and isinstance(one, str) and not osp.exists(one):
                        raise InputError(f"datasets: {name}: {key}: {one} does not exist (looked in {os.getcwd()})")

    after_parsing(look)
    return True


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def possible_options() -> bool:
    """Options that a run does not need failed later, as prefetch_mode: cuda without CUDA: they are switched off."""
    if contains(options.parse_options, "is_available"):
        return False
    after_parsing(lambda opt, args: make_possible(opt, opt["is_train"]))
    return True


def make_possible(opt: dict[str, Any], is_train: bool) -> None:
    """Switch off options that this machine or BasicSR does not support, in place and with a warning."""
    for phase, data in opt["datasets"].items():
        if data.get("prefetch_mode") == "cuda" and not torch.cuda.is_available():
            _warn(f"datasets: {phase}: prefetch_mode: cuda needs CUDA, which torch does not find; it is off")
            data["prefetch_mode"] = None
        # BasicSR loads validation and test data without workers, whatever num_worker_per_gpu says.
        if data.get("persistent_workers") and (phase != "train" or not data.get("num_worker_per_gpu")):
            _warn(f"datasets: {phase}: persistent_workers needs num_worker_per_gpu above 0; it is off")
            data["persistent_workers"] = False
        if DATA_SETS.get(data["type"]) is SingleDataset and data.get("meta_info_file", "") is None:
            del data["meta_info_file"]  # BasicSR opens whatever is there
    val = opt.get("val")
    if not is_train and val and val.get("save_img") and "suffix" not in val:
        _warn(f"val: suffix is missing; results are called NAME_{opt['name']}.png, as with suffix: ~")
        val["suffix"] = None


def random_weights() -> bool:
    """A test without pretrain_network_g silently tested random weights: a warning says so."""
    if contains(options.parse_options, "random weights"):
        return False

    def warn(opt: dict[str, Any], args: argparse.Namespace) -> None:
        if not opt["is_train"] and opt.get("network_g") and not opt["path"].get("pretrain_network_g"):
            _warn("path: pretrain_network_g is ~: random weights are tested; name a .pth there")

    after_parsing(warn)
    return True


def missing_keys() -> bool:
    """A key that a model of BasicSR needs, such as network_d, was a KeyError: it is named with the model."""
    stock = models.build_model
    if contains(stock, "except KeyError"):
        return False

    def build_model(opt: dict[str, Any]) -> Any:
        try:
            return stock(opt)
        except KeyError as error:
            own = MODEL_REGISTRY.get(opt["model_type"]).__module__.startswith("basicsr.")
            if not own or isinstance(error, InputError):  # other packages' models may fail for other reasons
                raise
            raise InputError(
                f"expected the key {error} for model_type: {opt['model_type']} in the option file or in the files that "
                "it names, found none"
            ) from error

    replace(stock, build_model)
    return True


def stray_folders() -> bool:
    """make_exp_dirs made a folder for every unknown key in path: only the run's folders are made."""
    stock = misc.make_exp_dirs
    if not contains(stock, "'strict_load' in key"):
        return False

    def make_exp_dirs(opt: dict) -> None:
        folders = TRAIN_FOLDERS if opt["is_train"] else TEST_FOLDERS
        stock({**opt, "path": {key: opt["path"][key] for key in folders}})

    replace(stock, make_exp_dirs)
    return True


def archive_names() -> bool:
    """Folders of earlier runs were renamed with a time in seconds, which could collide: a number is appended."""
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

"""Resuming from a training state: finding it, checking that it is complete, and restoring everything in it."""

import logging
import math
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from basicsr import train
from basicsr.data import build_dataloader
from basicsr.models.base_model import BaseModel
from basicsr.utils import check_resume, get_root_logger
from torch import distributed

from bidiffsr_arch.compat.options import after_parsing
from bidiffsr_arch.compat.patch import contains, replace, replace_method
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import digest
from bidiffsr_arch.parameters import load_safely, reason_of
from bidiffsr_arch.training import signals
from bidiffsr_arch.training.checkpoint_file import remove_abandoned
from bidiffsr_arch.training.degradation import restore_pool
from bidiffsr_arch.training.option_changes import (
    changed_options,
    check_changes,
    concerns_learning_rate,
    describe_changes,
    training_options,
)
from bidiffsr_arch.training.random_states import restore_random_states
from bidiffsr_arch.training.retention import retention_of
from bidiffsr_arch.training.sample_order import Order, OrderedSampler, SampleIndex, SeededDataset
from bidiffsr_arch.training.session import session_of

MOMENTS = ("exp_avg", "momentum_buffer", "square_avg")  # optimizer state per element of a parameter
NEEDED = {"epoch", "iter", "optimizers", "schedulers"}
TYPES = {"epoch": int, "iter": int, "position": int, "optimizers": list, "schedulers": list, "random": list,
         "options": dict, "networks": dict, "best": dict}  # fmt: skip


def drawn_seed() -> bool:
    """Without manual_seed each process drew its own, unknown when resuming: one is drawn and stored."""
    if contains(train.parse_options, "broadcast"):
        return False

    def share(opt: dict[str, Any], args: Namespace) -> None:
        drawn = args.options.get("manual_seed") is None
        if drawn and opt["dist"]:
            seed = [opt["manual_seed"]]
            distributed.broadcast_object_list(seed)
            opt["manual_seed"] = seed[0]
        if opt["is_train"]:
            session = session_of(opt)
            session.options, session.seed_is_drawn = training_options(opt, drawn), drawn
            session.strict = getattr(args, "strict_resume", False)

    after_parsing(share)
    return True


def resume_state() -> bool:
    """Resuming needs CUDA, --auto_resume looks in ./experiments: a CPU is enough, and path.experiments_root is used."""
    stock = train.load_resume_state
    if not contains(stock, "torch.cuda.current_device()"):
        return False

    def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
        path = _chosen(opt)
        if path is None:
            return None
        state = read_state(path)
        session = session_of(opt)
        opt["path"]["resume_state"] = str(path)
        if session.seed_is_drawn:
            opt["manual_seed"] = state.get("manual_seed", opt["manual_seed"])
        if state.get("options"):
            session.changes = changed_options(state["options"], session.options)
            ignored = tuple(opt["path"].get("ignore_resume_networks") or ())
            check_changes(session.changes, path, ignored, session.strict)
        check_resume(opt, state["iter"])
        if not opt["auto_resume"]:
            check_networks(opt, path, state)
        session.start = SampleIndex(state["epoch"], state.get("position", 0))
        session.iteration = session.saved = state["iter"]
        return state

    replace(stock, load_resume_state)
    return True


def resumed_epochs() -> bool:
    """A resumed run repeated its epoch with other crops: samples have an index, and the epoch continues at the next."""
    stock = train.create_train_val_dataloader
    if not contains(stock, "EnlargedSampler(train_set"):
        return False

    def create_train_val_dataloader(opt: dict[str, Any], logger: logging.Logger) -> tuple[Any, ...]:
        stock_loader, _, val_loaders, _, total_iters = stock(opt, logger)
        options, session = opt["datasets"]["train"], session_of(opt)
        ratio = options.get("dataset_enlarge_ratio", 1)
        dataset = SeededDataset(stock_loader.dataset, opt["manual_seed"])
        order = session.order = Order(
            length=int(len(dataset) * ratio),
            batch=stock_loader.batch_size,
            processes=opt["world_size"],
            start=session.start,
            iteration=session.iteration,
        )
        samples = order.length // order.processes
        if samples < order.batch:
            raise InputError(
                f"expected at least a batch of {order.batch} samples per process in datasets: train, got {samples}; "
                "lower batch_size_per_gpu or raise dataset_enlarge_ratio"
            )
        sampler = OrderedSampler(dataset, opt["rank"], ratio, order)
        loader = build_dataloader(dataset, options, opt["num_gpu"], opt["dist"], sampler, opt["manual_seed"])
        loader.generator = torch.Generator()  # else each epoch would draw from the generator of dropout
        loader.worker_init_fn = signals.ignore_signals if signals.watching() else None
        session.retention = retention_of(opt)
        if opt["rank"] == 0:
            for folder in ("models", "training_states"):
                remove_abandoned(Path(opt["path"][folder]))
            for line in describe_changes(session.changes):
                logger.info(line)
        # BasicSR's own count of epochs is too small where an epoch's last, incomplete batch is dropped.
        return loader, sampler, val_loaders, order.last_epoch(total_iters), total_iters

    replace(stock, create_train_val_dataloader)
    return True


def resumed_models() -> bool:
    """A resumed model had new random states and the old learning rate: saved states are restored, new options count."""
    stock = BaseModel.resume_training
    if not contains(stock, "Wrong lengths of optimizers"):
        return False

    def resume_training(self: BaseModel, resume_state: dict[str, Any]) -> None:
        session = session_of(self.opt)
        _check_optimizers(self, resume_state)
        if any(map(concerns_learning_rate, session.changes)):
            _resume_with_options(self, resume_state)
        else:
            stock(self, resume_state)
        session.iteration = session.saved = resume_state["iter"]
        if resume_state.get("best") and (self.opt.get("val") or {}).get("metrics"):
            self.best_metric_results = _best(resume_state["best"], self.opt["val"]["metrics"])
        restore_pool(self, resume_state.get("pools", []))
        states = resume_state.get("random", [])
        if len(states) == self.opt["world_size"]:
            restore_random_states(states[self.opt["rank"]])
        elif states:
            get_root_logger().warning(
                f"resumed in {self.opt['world_size']} processes, not {len(states)}: dropout uses other random numbers"
            )

    replace_method(BaseModel, "resume_training", resume_training)
    return True


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state to the CPU with torch's safe loader; optimizers move their part to their device.

    Raises:
        InputError: the file is damaged or not a training state.
    """
    try:
        with zipfile.ZipFile(path) as records:  # torch does not verify the checksums
            damaged = records.testzip()
        if damaged:
            raise InputError(f"{damaged} has another checksum")
        state = load_safely(path)
    except Exception as error:  # truncated zips and foreign pickles may raise anything
        raise InputError(f"{path} does not load as a training state ({reason_of(error)})") from error
    if not isinstance(state, dict) or not state.keys() >= NEEDED:
        raise InputError(f"{path} does not load as a training state (expected {', '.join(sorted(NEEDED))})")
    for key, kind in TYPES.items():
        value = state.get(key)
        parts = value if isinstance(value, list) else ()
        if value is not None and not (isinstance(value, kind) and all(isinstance(part, dict) for part in parts)):
            raise InputError(f"{path} does not load as a training state (expected another {key}, got {value!r:.40})")
    return state


def check_networks(opt: dict[str, Any], path: Path, state: dict[str, Any]) -> None:
    """Refuse a state whose network files are not those that were saved with it.

    States of stock BasicSR contain no digests; their network files only have to exist and load.

    Raises:
        InputError: a file is missing, damaged, or of another run.
    """
    ignored = opt["path"].get("ignore_resume_networks") or ()
    labels = [key.removeprefix("network_") for key in opt if key.startswith("network_") and key not in ignored]
    for label in labels:
        file = Path(opt["path"]["models"], f"net_{label}_{state['iter']}.pth")
        if not file.is_file():
            raise InputError(f"{path} has no network: {file} is missing")
        wanted = state.get("networks", {}).get(f"net_{label}")
        if wanted is None:
            _load_network(file)
        elif digest(file) != wanted:
            raise InputError(f"{path} has no network: {file} is damaged, or was saved by another run")


def _load_network(file: Path) -> None:
    try:
        load_safely(file)
    except Exception as error:
        raise InputError(f"{file} does not load as a network") from error


def _newest(opt: dict[str, Any]) -> Path | None:
    """The newest state of this experiment that loads and has its networks; a warning names those that are skipped."""
    states = [path for path in Path(opt["path"]["training_states"]).glob("*.state") if path.stem.isdecimal()]
    for path in sorted(states, key=lambda path: int(path.stem), reverse=True):
        try:
            check_networks(opt, path, read_state(path))
            return path
        except (InputError, OSError) as error:
            print(f"not resuming: {error}", flush=True)
    return None


def _chosen(opt: dict[str, Any]) -> Path | None:
    """The state to resume from; in a distributed run the first process chooses for all."""
    path = _newest(opt) if opt["auto_resume"] and opt["rank"] == 0 else None
    if opt["auto_resume"] and opt["dist"]:
        choice = [path]
        distributed.broadcast_object_list(choice)
        path = choice[0]
    if path is None and not opt["auto_resume"] and (named := opt["path"].get("resume_state")):
        path = Path(named)
    if path is not None and not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"path: resume_state: {path} {found}; name a .state file that all machines see, or ~")
    return path


def _check_optimizers(model: BaseModel, state: dict[str, Any]) -> None:
    """Refuse the state of other optimizers, such as the reference's for its network, before anything is loaded."""
    same = len(state["optimizers"]) == len(model.optimizers) and len(state["schedulers"]) == len(model.schedulers)
    if not (same and all(map(_fits, model.optimizers, state["optimizers"]))):
        raise InputError(
            f"expected optimizers of this network in {model.opt['path'].get('resume_state', 'the state')}, got others: "
            "it was saved by another program or for another network; train from its network file alone, by path: "
            "pretrain_network_g"
        )


def _fits(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> bool:
    """Whether a saved state has a group for each group of parameters, and moments of their shapes."""
    groups, wanted = saved.get("param_groups", []), optimizer.param_groups
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in wanted]:
        return False
    pairs = zip(
        (number for group in groups for number in group["params"]),
        (parameter for group in wanted for parameter in group["params"]),
        strict=True,
    )
    states = saved.get("state", {})
    moments = ((states.get(number, {}).get(name), parameter) for number, parameter in pairs for name in MOMENTS)
    return all(moment is None or moment.shape == parameter.shape for moment, parameter in moments)


def _resume_with_options(model: BaseModel, state: dict[str, Any]) -> None:
    """Restore the state of optimizers, but take their settings and the learning rate from the options, as if those had
    been used from the first iteration on."""
    update_learning_rate = BaseModel.update_learning_rate.__wrapped__  # without checking for signals
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # schedulers warn without optimizer steps
        for iteration in range(1, state["iter"] + 1):
            update_learning_rate(model, iteration, model.opt["train"].get("warmup_iter", -1))
    for optimizer, saved in zip(model.optimizers, state["optimizers"], strict=True):
        settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, chosen in zip(optimizer.param_groups, settings, strict=True):
            group.update(chosen)


def _best(saved: dict[str, Any], metrics: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The best results so far of the current metrics; without metrics that are new or whose direction has changed."""

    def record(records: dict[str, Any], name: str) -> dict[str, Any]:
        better = metrics[name].get("better", "higher")
        nothing = {"better": better, "val": -math.inf if better == "higher" else math.inf, "iter": -1}
        return records[name] if records.get(name, {}).get("better") == better else nothing

    return {dataset: {name: record(records, name) for name in metrics} for dataset, records in saved.items()}

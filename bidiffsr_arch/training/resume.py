"""Cures of going on from a saved state."""

import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from basicsr import train
from basicsr.data import build_dataloader
from basicsr.utils import check_resume
from torch import distributed

from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import digest
from bidiffsr_arch.training import signals
from bidiffsr_arch.training.sample_order import Place, PlacedDataset, PlacedSampler


def _load(path: Path) -> dict[str, Any]:
    """A training state, on the CPU and with torch's safe loader (an optimizer moves its own part to its device)."""
    try:
        with zipfile.ZipFile(path) as records:  # torch itself does not look at the checksums
            damaged = records.testzip()
        if damaged:
            raise InputError(f"{damaged} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a truncated zip or a foreign pickle may raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} does not load as a training state ({reason[0]})") from error
    if not isinstance(state, dict) or not {"epoch", "iter", "optimizers", "schedulers"} <= state.keys():
        raise InputError(f"{path} does not load as a training state (expected epoch, iter, optimizers, schedulers)")
    return state


def _check_networks(opt: dict[str, Any], path: Path, state: dict[str, Any]) -> None:
    """Refuse a state without the very network files that were saved with it.

    States of stock BasicSR hold no digests; their networks only have to be there and to load.
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
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{file} does not load as a network") from error


def _newest(opt: dict[str, Any]) -> Path | None:
    """The newest state of this experiment that loads and has its networks; the others are named on the way."""
    states = [path for path in Path(opt["path"]["training_states"]).glob("*.state") if path.stem.isdecimal()]
    for path in sorted(states, key=lambda path: int(path.stem), reverse=True):
        try:
            _check_networks(opt, path, _load(path))
            return path
        except (InputError, OSError) as error:
            print(f"not resuming: {error}", flush=True)
    return None


def _chosen(opt: dict[str, Any]) -> Path | None:
    """The state to go on from; in a run of many processes the first one chooses for all."""
    path = _newest(opt) if opt["auto_resume"] and opt["rank"] == 0 else None
    if opt["auto_resume"] and opt["dist"]:
        choice = [path]
        distributed.broadcast_object_list(choice)
        path = choice[0]
    if path is None and not opt["auto_resume"] and (named := opt["path"].get("resume_state")):
        path = Path(named)
    if path is not None and not path.is_file():
        raise InputError(f"path: resume_state: {path} does not exist; name a .state file that all machines see, or ~")
    return path


def resume_state() -> bool:
    """Resuming needs CUDA, --auto_resume looks in ./experiments: a CPU is enough, and path.experiments_root is used."""
    stock = train.load_resume_state
    if not contains(stock, "torch.cuda.current_device()"):
        return False

    def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
        path = _chosen(opt)
        if path is None:
            return None
        state = _load(path)
        opt["path"]["resume_state"] = str(path)
        opt["resume_place"] = [state["epoch"], state.get("position", 0), state["iter"]]
        if opt.get("seed_is_drawn"):
            opt["manual_seed"] = state.get("manual_seed", opt["manual_seed"])
        check_resume(opt, state["iter"])
        if not opt["auto_resume"]:
            _check_networks(opt, path, state)
        return state

    replace(stock, load_resume_state)
    return True


def resumed_epochs() -> bool:
    """A resumed run repeated its epoch with other crops: every sample has a place, and the epoch goes on at its own."""
    stock = train.create_train_val_dataloader
    if not contains(stock, "EnlargedSampler(train_set"):
        return False

    def create_train_val_dataloader(opt: dict[str, Any], logger: logging.Logger) -> tuple:
        stock_loader, _, val_loaders, _, total_iters = stock(opt, logger)
        options = opt["datasets"]["train"]
        epoch, position, iteration = opt.get("resume_place", (0, 0, 0))
        dataset = PlacedDataset(stock_loader.dataset, opt["manual_seed"])
        sampler = PlacedSampler(
            dataset, opt["world_size"], opt["rank"], options.get("dataset_enlarge_ratio", 1), Place(epoch, position)
        )
        loader = build_dataloader(dataset, options, opt["num_gpu"], opt["dist"], sampler, opt["manual_seed"])
        loader.generator = torch.Generator()  # else each epoch takes a number from the generator of dropout
        loader.worker_init_fn = signals.ignore_signals if signals.watching() else None
        batches = len(loader)
        if not batches:
            raise InputError(
                f"expected at least a batch of {loader.batch_size} samples a process in datasets: train, got "
                f"{sampler.num_samples}; lower batch_size_per_gpu or raise dataset_enlarge_ratio"
            )
        # BasicSR's own count of epochs is too small where an epoch's last, incomplete batch is dropped.
        in_this_epoch = (sampler.num_samples - position // opt["world_size"]) // loader.batch_size
        last_epoch = epoch + math.ceil(max(total_iters - iteration - in_this_epoch, 0) / batches)
        return loader, sampler, val_loaders, last_epoch, total_iters

    replace(stock, create_train_val_dataloader)
    return True


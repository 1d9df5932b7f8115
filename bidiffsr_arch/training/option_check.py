"""Every key of an option file, and what it may hold: named before hours are spent, with the nearest known key.

Blocks that BasicSR hands to a constructor or function (network_g, optim_g, scheduler, losses, metrics) are held against
its signature; the others against the tables of `option_kinds`. Only what is known whole is checked: other packages'
models, data sets and networks with ``**kwargs`` may read whatever they like.
"""

import difflib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from bidiffsr_arch.config.option_file import KNOWN_KEYS
from bidiffsr_arch.config.option_kinds import (
    ANY,
    BACKENDS,
    DATA,
    DATA_NEEDED,
    DISTILL,
    DISTRIBUTED,
    KINDS_OF_SIZES,
    KINDS_OF_TYPES,
    LOGGER,
    METRIC,
    NEEDED,
    NETWORK,
    NUMBER,
    OPTIMIZER,
    PATH,
    SCHEDULE,
    SCHEDULER,
    TEACHER,
    TEXT,
    TOP,
    TRAIN,
    TRAIN_DATA_NEEDED,
    VAL,
    WANDB,
    Kind,
)  # fmt: skip
from bidiffsr_arch.errors import InputError

OUR_MODELS = ("BIDiffSRModel", "BicubicModel")
OUR_NETWORKS = ("BBCUNet", "BIDiffSRUNet", "SR3UNet")
CHECKED_MODELS = (*OUR_MODELS, "SRModel")
PAIRED_DATA_SETS = ("MultiPairedImageDataset", "PairedImageDataset")
PHASES = {True: ("train", "val"), False: ("val", "test")}


def check_options(options: Mapping[str, Any], path: str, is_train: bool) -> None:
    """Hold every block against what reads it.

    Args:
        options: what `load_options` gives.
        path: the option file's name, for messages.
        is_train: whether `basicsr train` will read them.
    Raises:
        InputError: one line: the key, what was expected, what was found; an unknown key with the nearest known one.
    """
    from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

    _named(MODEL_REGISTRY, options["model_type"], f"{path}: model_type")
    for phase, data in options["datasets"].items():
        _named(DATASET_REGISTRY, data["type"], f"{path}: datasets: {phase}: type")
    if options["model_type"] not in CHECKED_MODELS:
        return
    known_top = dict.fromkeys(KNOWN_KEYS, ANY) | TOP
    if options["model_type"] in OUR_MODELS:
        _check_block(options, known_top, path, "")
    else:
        _check_values(options, known_top, path, "")
    for phase, data in options["datasets"].items():
        _check_data(data, phase, path, is_train)
    # which keys there may be depends on the sampler, so that Diffusion knows
    _check_values(options.get("beta_schedule") or {}, SCHEDULE, path, "beta_schedule")
    blocks = {"path": PATH, "dist_params": DISTRIBUTED, "val": VAL, "logger": LOGGER}
    for name, known in blocks.items():
        _check_block(options.get(name) or {}, known, path, name)
    _check_block((options.get("logger") or {}).get("wandb") or {}, WANDB, path, "logger: wandb")
    _check_need(options.get("val"), NEEDED["val"], path, "val")
    _check_metrics((options.get("val") or {}).get("metrics") or {}, path)
    if options.get("network_g") is not None:
        from basicsr.utils.registry import ARCH_REGISTRY

        ours = str(options["network_g"].get("type")) in OUR_NETWORKS
        _check_call(options["network_g"], ARCH_REGISTRY, path, "network_g", further=NETWORK if ours else None)
        _check_network(options["network_g"], path)
    if is_train:
        _check_training(options, path)


def _check_network(block: Mapping[str, Any], path: str) -> None:
    """Build the network without memory for its weights, which shows what no signature says."""
    import torch
    from basicsr.utils.registry import ARCH_REGISTRY

    if block["type"] not in OUR_NETWORKS:
        return
    network = ARCH_REGISTRY.get(block["type"])
    try:
        with torch.device("meta"):
            network(**{key: value for key, value in block.items() if key != "type"})
    except InputError:
        raise
    except Exception as error:  # whatever torch's layers make of impossible sizes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: network_g cannot be built ({reason}); see the values of {block['type']}") from error


def _check_training(options: Mapping[str, Any], path: str) -> None:
    """The blocks that only training reads."""
    from basicsr.models import lr_scheduler
    from basicsr.utils.registry import LOSS_REGISTRY
    from torch.optim import Adam

    _check_block(options["train"], TRAIN, path, "train")
    for name in ("train", "logger"):
        _check_need(options[name], NEEDED[name], path, name)
    if options.get("val") and any(phase.startswith("val") for phase in options["datasets"]):
        _check_need(options["val"], ("val_freq",), path, "val")
    train = options["train"]
    _check_call(train["optim_g"], {"Adam": Adam}, path, "train: optim_g", without=("params",), need=("lr",))
    steps, cosine = lr_scheduler.MultiStepRestartLR, lr_scheduler.CosineAnnealingRestartLR
    schedulers = {"MultiStepLR": steps, "MultiStepRestartLR": steps, "CosineAnnealingRestartLR": cosine}
    _check_call(train["scheduler"], schedulers, path, "train: scheduler", without=("optimizer",))
    for name, known in (("distill", DISTILL), ("teacher", TEACHER)):
        _check_block(train.get(name) or {}, known, path, f"train: {name}")
        _check_need(train.get(name), ("path",), path, f"train: {name}")
    if train.get("pixel_opt"):
        _check_call(train["pixel_opt"], LOSS_REGISTRY, path, "train: pixel_opt")
    _check_values(train["optim_g"], OPTIMIZER, path, "train: optim_g")
    _check_values(train["scheduler"], SCHEDULER, path, "train: scheduler")


def _check_data(data: Mapping[str, Any], phase: str, path: str, is_train: bool) -> None:
    block = f"datasets: {phase}"
    kind, phases = phase.split("_")[0], PHASES[is_train]
    if kind not in phases:
        raise InputError(f"{path}: expected the data sets to be {' or '.join(phases)} (or val_2, …), got {phase!r}")
    if data["type"] not in PAIRED_DATA_SETS:
        return
    _check_block(data, DATA, path, block)
    _check_need(data, (*DATA_NEEDED, *(TRAIN_DATA_NEEDED if kind == "train" else ())), path, block)
    backend = data["io_backend"]
    further = _named(BACKENDS, backend.get("type"), f"{path}: {block}: io_backend: type")
    _check_block(backend, dict.fromkeys(("type", *further), ANY), path, f"{block}: io_backend")


def _check_metrics(metrics: Mapping[str, Any], path: str) -> None:
    from basicsr.utils.registry import METRIC_REGISTRY

    for name, metric in metrics.items():
        block = f"val: metrics: {name}"
        if not isinstance(metric, Mapping):
            raise InputError(f"{path}: expected {block} to hold keys of its own, got {metric!r}")
        _check_call(metric, METRIC_REGISTRY, path, block, without=("img", "img2"), further=METRIC)


def _named(table: Any, name: Any, place: str) -> Any:
    """The entry of a table or a registry of BasicSR."""
    if not isinstance(name, str) or (isinstance(table, dict) and name not in table):
        known = ", ".join(table) if isinstance(table, dict) else "a name"
        raise InputError(f"expected {place} to be {known}, got {name!r}")
    try:
        return table[name] if isinstance(table, dict) else table.get(name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _check_call(
    block: Mapping[str, Any],
    table: Any,
    path: str,
    name: str,
    without: tuple[str, ...] = (),
    need: tuple[str, ...] = (),
    further: Mapping[str, Kind] | None = None,
) -> None:
    """Hold a block against the signature of what its ``type`` names in a table or registry of BasicSR."""
    target = _named(table, block.get("type"), f"{path}: {name}: type")
    parameters = dict(inspect.signature(target).parameters)
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = {key: parameter for key, parameter in parameters.items() if key not in without
             and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)}  # fmt: skip
    kinds = KINDS_OF_TYPES | (KINDS_OF_SIZES if target.__name__ in OUR_NETWORKS else {})
    # Without a hint the default tells the kind, but BasicSR's eta_min=0 takes 1e-7 as well.
    by_default = KINDS_OF_TYPES | {int: NUMBER}
    known = {"type": TEXT} | {key: kinds.get(hints[key], ANY) if key in hints
                              else by_default.get(type(parameter.default), ANY)
                              for key, parameter in takes.items()} | dict(further or {})  # fmt: skip
    # BasicSR's own metrics and losses take **kwargs only to ignore what is not theirs
    if is_open and not target.__module__.startswith(("basicsr.metrics", "basicsr.losses", "bidiffsr_arch")):
        _check_values(block, known, path, name)
    else:
        _check_block(block, known, path, name)
    lacking = [key for key, parameter in takes.items() if parameter.default is parameter.empty]
    _check_need(block, (*lacking, *need), path, name)


def _check_block(block: Mapping[str, Any], known: Mapping[str, Kind], path: str, name: str) -> None:
    """Refuse unknown keys and wrong values."""
    for key in block:
        if key not in known and not (name == "" and key.startswith("network_")):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            place = f"in {name}:" if name else "at the top level"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: unknown key {key!r} {place}{hint} Known: {', '.join(sorted(known))}")
    _check_values(block, known, path, name)


def _check_values(block: Mapping[str, Any], known: Mapping[str, Kind], path: str, name: str) -> None:
    for key in block:
        if key in known:
            _check_value(block, key, known[key], path, name)


def _check_value(block: Mapping[str, Any], key: str, kind: Kind, path: str, name: str) -> None:
    if key in block and not kind.holds(block[key]):
        place = f"{name}: {key}" if name else key
        raise InputError(f"{path}: expected {place} to be {kind.words}, got {block[key]!r}")


def _check_need(block: Mapping[str, Any] | None, needed: tuple[str, ...], path: str, name: str) -> None:
    missing = [key for key in needed if block is not None and key not in block]
    if missing:
        near = difflib.get_close_matches(missing[0], block, n=1)
        hint = f"; is {near[0]!r} meant for it?" if near else ""
        raise InputError(f"{path}: expected the key(s) {', '.join(missing)} in {name}:, found none{hint}")

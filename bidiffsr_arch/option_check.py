"""Every key of an option file, and what it may hold: named before hours are spent, with the nearest known key.

Blocks that BasicSR hands to a constructor or function (network_g, optim_g, scheduler, losses, metrics) are held against
its signature; the others against the tables below. Only what is known whole is checked: other packages' models, data
sets and networks with ``**kwargs`` may read whatever they like.
"""

import difflib
import inspect
import math
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.option_file import KNOWN_KEYS

OUR_MODELS = ("BIDiffSRModel", "BicubicModel")
CHECKED_MODELS = (*OUR_MODELS, "SRModel")
PAIRED_DATA_SETS = ("MultiPairedImageDataset", "PairedImageDataset")
PHASES = {True: ("train", "val"), False: ("val", "test")}


class Kind(NamedTuple):
    """What a value has to be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def _are(kind: "Kind", length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (list, tuple)) and (length is None or len(value) == length) and all(map(kind.holds, value))
    )


def _fills(value: Any) -> bool:
    """Whether a text is a template for one name."""
    try:
        return isinstance(value, str) and "name" in value.format("name") and os.sep not in value
    except (LookupError, ValueError, AttributeError):
        return False


def _one_of(*values: str | None) -> Kind:
    words = ", ".join("~" if value is None else value for value in values)
    return Kind(f"one of {words}", lambda value: isinstance(value, (str, type(None))) and value in values)


def _or_none(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or ~", lambda value: value is None or kind.holds(value))


ANY = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str) and value != "" and "\0" not in value)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)
WHOLE = Kind("a whole number", _is_whole)
COUNT = Kind("a whole number from 1 on", lambda value: _is_whole(value) and value >= 1)
INDEX = Kind("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0)
ITEMS = Kind("a whole number from 1 on, without a point", lambda value: type(value) is int and value >= 1)
WORKERS = Kind("a whole number from 0 on, without a point", lambda value: type(value) is int and value >= 0)
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
FROM_ZERO = Kind("a number from 0 on", lambda value: _is_number(value) and value >= 0)
SHARE = Kind("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
SEED = Kind("a whole number from 0 to 2^31", lambda value: type(value) is int and 0 <= value <= 2**31)
BLOCK = Kind("keys of its own", lambda value: isinstance(value, Mapping))
COLOURS = Kind("three numbers", _are(NUMBER, 3))
NAME = Kind("a name without .. and /", lambda value: TEXT.holds(value) and not {"..", "."} & {value}
            and os.sep not in value)  # fmt: skip
MAYBE_TEXT, MAYBE_FLAG = _or_none(TEXT), _or_none(FLAG)

TOP = {
    "name": NAME, "model_type": TEXT, "manual_seed": _or_none(SEED), "find_unused_parameters": FLAG,
}  # fmt: skip
TRAIN = {
    "optim_g": BLOCK, "scheduler": BLOCK, "total_iter": COUNT, "warmup_iter": WHOLE, "ema_decay": SHARE,
    "pixel_opt": _or_none(BLOCK), "perceptual_opt": _or_none(BLOCK), "amp": _one_of(None, "bf16", "fp16"),
    "compile": MAYBE_FLAG, "checkpointing": MAYBE_FLAG, "channels_last": MAYBE_FLAG, "accumulate": _or_none(ITEMS),
    "grad_clip": _or_none(POSITIVE),
}  # fmt: skip
VAL = {
    "val_freq": COUNT, "save_img": FLAG, "pbar": FLAG, "suffix": MAYBE_TEXT, "packed": FLAG,
    "metrics": _or_none(BLOCK),
}  # fmt: skip
LOGGER = {
    "print_freq": COUNT, "save_checkpoint_freq": COUNT, "use_tb_logger": FLAG, "wandb": _or_none(BLOCK),
    "keep_newest": _or_none(ITEMS), "keep_best": MAYBE_TEXT,
}  # fmt: skip
WANDB = {"project": MAYBE_TEXT, "resume_id": MAYBE_TEXT}
PATH = {
    "resume_state": MAYBE_TEXT, "ignore_resume_networks": ANY, "experiments_root": MAYBE_TEXT,
    "results_root": MAYBE_TEXT, "pretrain_network_g": MAYBE_TEXT, "strict_load_g": FLAG, "param_key_g": MAYBE_TEXT,
}  # fmt: skip
OPTIMIZER = {
    "lr": POSITIVE, "eps": POSITIVE, "weight_decay": FROM_ZERO,
    "betas": Kind("two numbers from 0 to below 1", _are(SHARE, 2)),
}  # fmt: skip
ITERATIONS = Kind("a list of whole numbers from 0 on", _are(INDEX))
SCHEDULER = {"milestones": ITERATIONS, "periods": ITERATIONS, "gamma": FROM_ZERO, "eta_min": FROM_ZERO}
SCHEDULE = {
    "scheduler_type": TEXT, "schedule": TEXT, "n_timestep": COUNT, "linear_start": POSITIVE, "linear_end": POSITIVE,
    "prediction_type": TEXT, "num_inference_steps": COUNT, "is_guidance": FLAG, "guidance_scale": NUMBER,
}  # fmt: skip
DISTRIBUTED = {"backend": TEXT, "port": ITEMS}
DATA = {
    "name": NAME, "type": TEXT, "task": TEXT, "dataroot_gt": TEXT, "dataroot_lq": TEXT, "meta_info_file": MAYBE_TEXT,
    "io_backend": BLOCK, "filename_tmpl": Kind("a template such as '{}x4'", _fills), "gt_size": ITEMS,
    "use_hflip": FLAG, "use_rot": FLAG, "use_shuffle": FLAG, "num_worker_per_gpu": WORKERS,
    "batch_size_per_gpu": ITEMS, "dataset_enlarge_ratio": POSITIVE, "prefetch_mode": _one_of(None, "cpu", "cuda"),
    "num_prefetch_queue": ITEMS, "pin_memory": FLAG, "persistent_workers": FLAG, "color": _one_of(None, "y"),
    "mean": _or_none(COLOURS), "std": _or_none(COLOURS), "scale": ITEMS, "phase": TEXT,
}  # fmt: skip
BACKENDS = {"disk": (), "lmdb": ("db_paths", "client_keys"), "memcached": ("server_list_cfg", "client_cfg", "sys_path")}

DATA_NEEDED = ("dataroot_gt", "dataroot_lq", "io_backend")
TRAIN_DATA_NEEDED = ("gt_size", "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu")
NEEDED = {"train": ("optim_g", "scheduler", "total_iter"), "val": ("save_img",),
          "logger": ("print_freq", "save_checkpoint_freq", "use_tb_logger")}  # fmt: skip
KINDS_OF_TYPES = {int: WHOLE, float: NUMBER, bool: FLAG, str: TEXT,
                  Sequence[int]: Kind("a list of whole numbers", _are(WHOLE))}  # fmt: skip
KINDS_OF_SIZES = {int: ITEMS, Sequence[int]: Kind("a list of whole numbers from 1 on", _are(ITEMS))}  # in our networks


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

        _check_call(options["network_g"], ARCH_REGISTRY, path, "network_g")
        _check_network(options["network_g"], path)
    if is_train:
        _check_training(options, path)


def _check_network(block: Mapping[str, Any], path: str) -> None:
    """Build the network without memory for its weights, which shows what no signature says."""
    import torch
    from basicsr.utils.registry import ARCH_REGISTRY

    network = ARCH_REGISTRY.get(block["type"])
    if not network.__module__.startswith("bidiffsr_arch"):
        return
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
        _check_call(metric, METRIC_REGISTRY, path, block, without=("img", "img2"), further={
            "better": _one_of("higher", "lower"), "crop_border": INDEX})  # fmt: skip


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
    kinds = KINDS_OF_TYPES | (KINDS_OF_SIZES if target.__module__.startswith("bidiffsr_arch.archs") else {})
    known = {"type": TEXT} | {key: kinds.get(hints.get(key, type(parameter.default)), ANY)
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

"""What the keys of an option file may hold: kinds of values, and a table of keys for each block."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What a value has to be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def are(kind: "Kind", length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (list, tuple)) and (length is None or len(value) == length) and all(map(kind.holds, value))
    )


def _fills(value: Any) -> bool:
    """Whether a text is a template for one name."""
    try:
        return isinstance(value, str) and "name" in value.format("name") and os.sep not in value
    except (LookupError, ValueError, AttributeError):
        return False


def one_of(*values: str | None) -> Kind:
    words = ", ".join("~" if value is None else value for value in values)
    return Kind(f"one of {words}", lambda value: isinstance(value, (str, type(None))) and value in values)


def or_none(kind: Kind) -> Kind:
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
STEPS = Kind("a whole number from 1 to 100000", lambda value: _is_whole(value) and 1 <= value <= 10**5)
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
FROM_ZERO = Kind("a number from 0 on", lambda value: _is_number(value) and value >= 0)
SHARE = Kind("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
SEED = Kind("a whole number from 0 to 2^31", lambda value: type(value) is int and 0 <= value <= 2**31)
BLOCK = Kind("keys of its own", lambda value: isinstance(value, Mapping))
COLOURS = Kind("three numbers", are(NUMBER, 3))
NAME = Kind("a name without .. and /", lambda value: TEXT.holds(value) and not {"..", "."} & {value}
            and os.sep not in value)  # fmt: skip
MAYBE_TEXT, MAYBE_FLAG = or_none(TEXT), or_none(FLAG)

TOP = {
    "name": NAME, "model_type": TEXT, "manual_seed": or_none(SEED), "find_unused_parameters": FLAG,
    "plugins": or_none(Kind("a list of modules", are(TEXT))),
}  # fmt: skip
TRAIN = {
    "optim_g": BLOCK, "scheduler": BLOCK, "total_iter": COUNT, "warmup_iter": WHOLE, "ema_decay": SHARE,
    "pixel_opt": or_none(BLOCK), "perceptual_opt": or_none(BLOCK), "amp": one_of(None, "bf16", "fp16"),
    "compile": MAYBE_FLAG, "checkpointing": MAYBE_FLAG, "channels_last": MAYBE_FLAG, "accumulate": or_none(ITEMS),
    "grad_clip": or_none(POSITIVE), "timestep_weighting": or_none(BLOCK), "distill": or_none(BLOCK),
    "teacher": or_none(BLOCK),
}  # fmt: skip
DISTILL = {"path": TEXT, "options": MAYBE_TEXT, "steps": or_none(STEPS)}
TEACHER = {"path": TEXT, "options": MAYBE_TEXT, "weight": POSITIVE}
VAL = {
    "val_freq": COUNT, "save_img": FLAG, "pbar": FLAG, "suffix": MAYBE_TEXT, "packed": FLAG,
    "metrics": or_none(BLOCK),
}  # fmt: skip
LOGGER = {
    "print_freq": COUNT, "save_checkpoint_freq": COUNT, "use_tb_logger": FLAG, "wandb": or_none(BLOCK),
    "keep_newest": or_none(ITEMS), "keep_best": MAYBE_TEXT,
}  # fmt: skip
WANDB = {"project": MAYBE_TEXT, "resume_id": MAYBE_TEXT}
PATH = {
    "resume_state": MAYBE_TEXT, "ignore_resume_networks": ANY, "experiments_root": MAYBE_TEXT,
    "results_root": MAYBE_TEXT, "pretrain_network_g": MAYBE_TEXT, "strict_load_g": FLAG, "param_key_g": MAYBE_TEXT,
}  # fmt: skip
OPTIMIZER = {
    "lr": POSITIVE, "eps": POSITIVE, "weight_decay": FROM_ZERO,
    "betas": Kind("two numbers from 0 to below 1", are(SHARE, 2)),
}  # fmt: skip
ITERATIONS = Kind("a list of whole numbers from 0 on", are(INDEX))
SCHEDULER = {"milestones": ITERATIONS, "periods": ITERATIONS, "gamma": FROM_ZERO, "eta_min": FROM_ZERO}
SCHEDULE = {
    "scheduler_type": TEXT, "schedule": TEXT, "n_timestep": STEPS, "linear_start": POSITIVE, "linear_end": POSITIVE,
    "prediction_type": TEXT, "num_inference_steps": STEPS, "is_guidance": FLAG, "guidance_scale": NUMBER,
}  # fmt: skip
DISTRIBUTED = {"backend": TEXT, "port": ITEMS}
DATA = {
    "name": NAME, "type": TEXT, "task": TEXT, "dataroot_gt": TEXT, "dataroot_lq": TEXT, "meta_info_file": MAYBE_TEXT,
    "io_backend": BLOCK, "filename_tmpl": Kind("a template such as '{}x4'", _fills), "gt_size": ITEMS,
    "use_hflip": FLAG, "use_rot": FLAG, "use_shuffle": FLAG, "num_worker_per_gpu": WORKERS,
    "batch_size_per_gpu": ITEMS, "dataset_enlarge_ratio": POSITIVE, "prefetch_mode": one_of(None, "cpu", "cuda"),
    "num_prefetch_queue": ITEMS, "pin_memory": FLAG, "persistent_workers": FLAG, "color": one_of(None, "y"),
    "mean": or_none(COLOURS), "std": or_none(COLOURS), "scale": ITEMS, "phase": TEXT,
}  # fmt: skip
BACKENDS = {"disk": (), "lmdb": ("db_paths", "client_keys"), "memcached": ("server_list_cfg", "client_cfg", "sys_path")}

DATA_NEEDED = ("dataroot_gt", "dataroot_lq", "io_backend")
TRAIN_DATA_NEEDED = ("gt_size", "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu")
NEEDED = {"train": ("optim_g", "scheduler", "total_iter"), "val": ("save_img",),
          "logger": ("print_freq", "save_checkpoint_freq", "use_tb_logger")}  # fmt: skip
KINDS_OF_TYPES = {int: WHOLE, float: NUMBER, bool: FLAG, str: TEXT,
                  Sequence[int]: Kind("a list of whole numbers", are(WHOLE))}  # fmt: skip
# In our networks. Above these, building one takes hours or more memory than there is, whatever else is wrong.
SIZE = Kind("a whole number from 1 to 100000", lambda value: type(value) is int and 1 <= value <= 10**5)
BLOCKS = Kind("a whole number from 1 to 100", lambda value: type(value) is int and 1 <= value <= 100)
KINDS_OF_SIZES = {int: SIZE, Sequence[int]: Kind("a list of whole numbers from 1 to 100000", are(SIZE))}
NETWORK = {"res_blocks": BLOCKS}
METRIC = {"better": one_of("higher", "lower"), "crop_border": INDEX}

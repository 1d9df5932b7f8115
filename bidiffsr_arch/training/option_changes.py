"""Options that have changed since the training state from which a run resumes."""

from collections.abc import Mapping
from typing import Any

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import constructor_defaults, find_architecture

# Options that do not affect what is learned.
OTHER_BLOCKS = (
    "name", "path", "val", "logger", "dist_params", "expected", "paper_row", "base", "plugins", "num_gpu",
    "find_unused_parameters", "root_path", "auto_resume", "is_train", "dist", "rank", "session", "datasets",
)  # fmt: skip
LOADING = (
    "name", "phase", "scale", "num_worker_per_gpu", "prefetch_mode", "num_prefetch_queue", "pin_memory",
    "persistent_workers", "io_backend",
)  # fmt: skip
NETWORK, SEPARATOR, SCHEDULE = "network_", ": ", "beta_schedule"
# Options that define, as the network's do, what trained weights compute. Others in beta_schedule are the sampler's.
NOISE = (
    "schedule", "n_timestep", "linear_start", "linear_end", "prediction_type", "trained_betas",
    "rescale_betas_zero_snr",
)  # fmt: skip
MEANING = {
    *DiffusionOptions.model_fields,
    *(f"{SCHEDULE}{SEPARATOR}{name}" for name in NOISE),
    *(f"datasets{SEPARATOR}train{SEPARATOR}{name}" for name in ("mean", "std", "color")),
}


def training_options(opt: Mapping[str, Any], seed_is_drawn: bool) -> dict[str, Any]:
    """The options that affect training, as a flat dictionary: ``{"train: optim_g: lr": 1e-4, …}``."""
    blocks = {key: value for key, value in opt.items() if key not in OTHER_BLOCKS}
    if seed_is_drawn:
        blocks.pop("manual_seed", None)
    data = opt["datasets"].get("train") or {}
    blocks["datasets"] = {"train": {key: value for key, value in data.items() if key not in LOADING}}
    return _flat(blocks)


def changed_options(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``{key: (then, now)}`` of all differences, None for missing options.

    The defaults of networks and of the diffusion are filled in, and keys of ``beta_schedule`` have their first name.
    """
    then, now = ({**_network_defaults(options), **_diffusion(options)} for options in (then, now))
    keys = dict.fromkeys([*then, *now])
    return {key: (then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)}


def check_changes(changes: Mapping[str, tuple[Any, Any]], path: Any, ignored: tuple[str, ...], strict: bool) -> None:
    """Refuse changes with which training cannot be resumed.

    Args:
        path: the training state, for the message.
        ignored: networks that are not resumed (``path: ignore_resume_networks``).
        strict: refuse all changes.
    Raises:
        InputError: a network, an option of `MEANING` or the class of an optimizer has changed; with `strict`, anything.
    """
    refused = [key for key in changes if strict or _belongs_to_state(key, ignored)]
    if refused:
        then, now = changes[refused[0]]
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise InputError(
            f"expected {refused[0]}: {_shown(then)}, as {path} was trained with, got {_shown(now)}{more}; restore "
            "it, or start a new run under another name"
        )


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One line per change."""
    return [f"resumed with another {key}: {_shown(then)} -> {_shown(now)}" for key, (then, now) in changes.items()]


def concerns_learning_rate(key: str) -> bool:
    """Whether the state of an optimizer or scheduler contains this option, too."""
    parts = key.split(SEPARATOR)
    return parts[0] == "train" and (parts[1].startswith("optim_") or parts[1] in ("scheduler", "warmup_iter"))


def _belongs_to_state(key: str, ignored: tuple[str, ...]) -> bool:
    block, *inner = key.split(SEPARATOR)
    network = "network_g" if key in MEANING else block
    of_network = network.startswith(NETWORK) and network not in ignored
    return of_network or (block == "train" and inner[0].startswith("optim_") and inner[-1] == "type")


def _network_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for block in {key.split(SEPARATOR)[0] for key in options if key.startswith(NETWORK)}:
        try:
            architecture = find_architecture(options.get(f"{block}{SEPARATOR}type"))
        except InputError:
            continue
        defaults |= _flat({block: constructor_defaults(architecture)})
    return defaults


def _diffusion(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, those in `DiffusionOptions` as it reads them; unchanged if other models' values do not fit it."""
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in options.items():
        block, _, name = key.partition(SEPARATOR)
        if block == SCHEDULE and name:
            own.setdefault(block, {})[name] = value
        else:
            (own if key in DiffusionOptions.model_fields else others)[key] = value
    try:
        return others | _flat(DiffusionOptions.read(own).model_dump())
    except InputError:
        return dict(options)


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in block.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}{SEPARATOR}")
        elif value is not None:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """A value that `torch.load(weights_only=True)` can read."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _shown(value: Any) -> str:
    return "left out" if value is None else str(value)

"""Parameters of networks: read from checkpoints of many formats, and loaded into a network."""

import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bidiffsr_arch import description
from bidiffsr_arch.errors import InputError, first_line

SAFETENSORS = ".safetensors"
# Keys under which a checkpoint may store its parameters, in order of preference.
CONTAINERS = (
    "params_ema", "params", "ema", "state_dict", "model_state_dict", "model", "generator", "net_g", "network", "module",
)  # fmt: skip
NESTED = 2  # {'model': {'state_dict': …}}
COMPILED = "_orig_mod."  # of torch.compile, before the names of the compiled module
TRAINING_STATE = {"optimizers", "schedulers"}  # keys of BasicSR's
FOREIGN = re.compile(r"GLOBAL ([\w.]+)")  # in torch's message about an object that its safe loader refuses
EXTRA = "_extra_state"  # what a module may add to its state dict, of any type


def read_parameters(path: str | Path, param_key: str | None = "params") -> tuple[OrderedDict[str, Tensor], str]:
    """As `find_parameters`, and refuse parameters that are not finite.

    Raises:
        InputError: as `find_parameters`, or a parameter is NaN or infinite.
    """
    tensors, found = find_parameters(path, param_key)
    lost = [name for name, value in tensors.items() if isinstance(value, Tensor) and not torch.isfinite(value).all()]
    if lost:
        raise InputError(
            f"expected numbers in {path}, got NaN or infinity in {len(lost)} tensors, {lost[0]} among them; use an "
            "earlier checkpoint"
        )
    return tensors, found


def find_parameters(path: str | Path, param_key: str | None = "params") -> tuple[OrderedDict[str, Tensor], str]:
    """Read a network's parameters, and the key under which they were found.

    Args:
        path: a file of ``torch.save``, read with ``weights_only=True``, so that no code in it can run; or a
            ``.safetensors`` of float parameters.
        param_key: the wanted key (``params``, ``params_ema``). Without it in the file, the first key of `CONTAINERS` is
            used; a bare state dict is used as it is (key ``.``).
    Returns:
        The parameters by their names in the file, which may have prefixes, see `named_as_in`.
    Raises:
        InputError: no such file, not a checkpoint, or no parameters in it.
    """
    content = read_content(Path(path))
    keys = ([] if param_key is None else [param_key]) + list(CONTAINERS)
    found, parameters = ".", content
    for _ in range(NESTED):
        key = next((key for key in keys if _has_tensors(parameters.get(key))), None)
        if key is not None:
            found, parameters = key, parameters[key]
    named = OrderedDict((str(name), value) for name, value in parameters.items())
    tensors = OrderedDict((n, value) for n, value in named.items() if isinstance(value, Tensor) or n.endswith(EXTRA))
    if not tensors:
        raise InputError(f"expected parameters under {param_key!r} in {path}, got {_contents(content)}")
    return tensors, found


def _has_tensors(value: Any, depth: int = NESTED) -> bool:
    """Whether a value is a dictionary of tensors, or of such dictionaries."""
    inner = value.values() if isinstance(value, Mapping) and depth else ()
    return any(isinstance(item, Tensor) or _has_tensors(item, depth - 1) for item in inner)


def _contents(content: Mapping[str, Any]) -> str:
    """What a file without parameters has instead."""
    if content.keys() >= TRAINING_STATE:
        return "a training state, which has none; name the network's file in models/"
    return f"the keys {', '.join(map(str, list(content)[:8]))}" if content else "nothing"


def named_as_in(network: nn.Module, parameters: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Parameters by the network's own names, without a prefix that a checkpoint gives all of them.

    Such prefixes are ``module.`` (DataParallel), ``_orig_mod.`` (`torch.compile`), ``denoise_fn.`` (SR3) or the
    attribute of a Lightning module. The one with most names of the network is removed; names without it belong to the
    wrapper, as the buffers of SR3's noise schedule do, and are dropped.
    """
    named = OrderedDict((name.replace(COMPILED, ""), value) for name, value in parameters.items())
    wanted = network.state_dict().keys()
    prefixes = Counter({"": 0})
    for name in named:
        starts = [0, *(place + 1 for place, char in enumerate(name) if char == ".")]
        prefixes.update(name[:start] for start in starts if name[start:] in wanted)
    prefix = max(prefixes, key=lambda text: prefixes[text])
    return OrderedDict((name.removeprefix(prefix), value) for name, value in named.items() if name.startswith(prefix))


def set_parameters(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    path: str | Path,
    options: str | Path = "network_g",
    strict: bool = True,
) -> None:
    """Load parameters into a network that has their names.

    Args:
        path: the file they were read from, for messages.
        options: the source of the network's options, for messages.
        strict: if False, load only parameters whose names match.
    Raises:
        InputError: they do not fit the network, or without `strict` none of them does; the message has the number of
            differences and the first one.
    """
    wanted = network.state_dict().keys()
    if wanted and not strict and not wanted & parameters.keys():
        raise InputError(f"expected weights of the network in {options}, got {path}, of which none fits it")
    try:
        network.load_state_dict(parameters, strict=strict)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise InputError(
            f"expected weights of the network in {options}, got {path}, which differs in {len(lines)} places; "
            f"first: {lines[0][:200]}"
        ) from error


def load_parameters(
    network: nn.Module, path: str | Path, param_key: str | None = "params_ema", options: str | Path = "network_g"
) -> str:
    """Load a network's parameters from a file, see `read_parameters` and `set_parameters`.

    Returns:
        The key under which the parameters were found.
    Raises:
        InputError: the file cannot be read, or holds parameters of another network.
    """
    parameters, found = read_parameters(path, param_key)
    set_parameters(network, named_as_in(network, parameters), path, options)
    return found


def read_content(path: Path) -> Mapping[str, Any]:
    """The dictionary in a checkpoint, on the CPU.

    Raises:
        InputError: no such file, or no checkpoint.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"expected a checkpoint at {path}, got {found}; check path: pretrain_network_g")
    try:
        content: Any = _without_description(path) if path.suffix == SAFETENSORS else load_safely(path)
    except Exception as error:  # truncated files and foreign pickles may raise anything
        raise InputError(
            f"expected a readable checkpoint of tensors, got {path}, which does not load ({reason_of(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")
    return content


def load_safely(path: str | Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU. No code in it can run: other objects than tensors and plain
    values are an error of `pickle`. Other errors are those of damaged files, and may be of any type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about formats that are refused afterwards
        return torch.load(path, map_location="cpu", weights_only=True)


def reason_of(error: Exception) -> str:
    """One sentence about why a file does not load; torch's own recommends running the code in it."""
    if isinstance(error, UnpicklingError):
        named = FOREIGN.search(str(error))
        return f"it contains objects of {named[1]}; save its tensors alone" if named else "it is no file of torch.save"
    return first_line(error).split(". ")[0]


def _without_description(path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if name != description.TENSOR}

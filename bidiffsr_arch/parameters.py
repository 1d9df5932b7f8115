"""A network's parameters: read from a file in every known spelling, and loaded into a network."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bidiffsr_arch import description
from bidiffsr_arch.errors import InputError

SAFETENSORS = ".safetensors"
# Where a checkpoint may keep its parameters, in order of preference.
CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
NESTED = 2  # {'model': {'state_dict': …}}
# What wrappers put before parameter names: DataParallel, and SR3, whose checkpoints hold the whole diffusion: the
# network behind a prefix, and the noise schedule as buffers beside it.
PREFIXES = ("module.", "denoise_fn.")
COMPILED = "_orig_mod."  # torch.compile's, before the names of whichever module was compiled


def read_parameters(path: str | Path, param_key: str | None = "params") -> tuple[OrderedDict[str, Tensor], str]:
    """Read a network's parameters, without the prefixes of wrappers, and the key under which they were found.

    Args:
        path: a file of ``torch.save``, read with ``weights_only=True``, so that no code in it can run; or a
            ``.safetensors`` of float parameters.
        param_key: the wanted entry (``params``, ``params_ema``). A file without it gives the first of `CONTAINERS` that
            it has, and a bare state dict is taken as it is (key ``.``).
    Raises:
        InputError: no such file, not a checkpoint, no parameters in it, or some that are not finite.
    """
    content = read_content(Path(path))
    keys = ([] if param_key is None else [param_key]) + list(CONTAINERS)
    found, parameters = ".", content
    for _ in range(NESTED):
        key = next((key for key in keys if isinstance(parameters.get(key), Mapping)), None)
        if key is not None:
            found, parameters = key, parameters[key]
    tensors = OrderedDict((name, value) for name, value in parameters.items() if isinstance(value, Tensor))
    if not tensors:
        listed = ", ".join(map(str, list(content)[:8]))
        raise InputError(f"expected parameters under {param_key!r} in {path}, got the keys {listed}")
    lost = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if lost:
        raise InputError(
            f"expected numbers in {path}, got NaN or infinity in {len(lost)} tensors, {lost[0]} among them; use an "
            "earlier checkpoint"
        )
    return _without_prefixes(tensors), found


def set_parameters(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    path: str | Path,
    options: str | Path = "network_g",
    strict: bool = True,
) -> None:
    """Load what `read_parameters` has read from `path` into a network.

    Args:
        options: where the network is described, for the message.
        strict: False loads what has the names and shapes of the network's parameters.
    Raises:
        InputError: they are of another network; the number of differences and the first one are named.
    """
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
    set_parameters(network, parameters, path, options)
    return found


def read_content(path: Path) -> Mapping[str, Any]:
    """The dictionary in a checkpoint, on the CPU.

    Raises:
        InputError: no such file, or no checkpoint.
    """
    try:
        if path.suffix == SAFETENSORS:
            content: Any = {name: tensor for name, tensor in load_file(path).items() if name != description.TENSOR}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"expected a checkpoint at {path}, got no such file; check path: pretrain_network_g") from None
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"expected a readable checkpoint of tensors, got {path}, which does not load ({reason})"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")
    return content


def _without_prefixes(tensors: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Remove wrappers' prefixes; where only some names have one, the others belong to the wrapper and are left out."""
    tensors = OrderedDict((name.replace(COMPILED, ""), tensor) for name, tensor in tensors.items())
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = OrderedDict(
                (name.removeprefix(prefix), t) for name, t in tensors.items() if name.startswith(prefix)
            )
    return tensors

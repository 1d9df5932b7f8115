"""Parameters of networks: read from checkpoints of many formats, and loaded into a network."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bidiffsr_arch import description
from bidiffsr_arch.errors import InputError, first_line

SAFETENSORS = ".safetensors"
# Keys under which a checkpoint may store its parameters, in order of preference.
CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
NESTED = 2  # {'model': {'state_dict': …}}
# Prefixes of parameter names: that of DataParallel, and that of SR3, whose checkpoints contain the whole diffusion
# process: the network has this prefix, and the noise schedule consists of buffers without it.
PREFIXES = ("module.", "denoise_fn.")
COMPILED = "_orig_mod."  # prefix of torch.compile, before the names of the compiled module


def read_parameters(path: str | Path, param_key: str | None = "params") -> tuple[OrderedDict[str, Tensor], str]:
    """Read a network's parameters, without the prefixes of wrappers, and the key under which they were found.

    Args:
        path: a file of ``torch.save``, read with ``weights_only=True``, so that no code in it can run; or a
            ``.safetensors`` of float parameters.
        param_key: the wanted key (``params``, ``params_ema``). Without it in the file, the first key of `CONTAINERS` is
            used; a bare state dict is used as it is (key ``.``).
    Raises:
        InputError: no such file, not a checkpoint, no parameters in it, or parameters that are not finite.
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
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(
            f"expected finite parameters in {path}, got NaN or infinity in {len(broken)} tensors, such as {broken[0]}; "
            "use an earlier checkpoint"
        )
    return _without_prefixes(tensors), found


def set_parameters(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    path: str | Path,
    options: str | Path = "network_g",
    strict: bool = True,
) -> None:
    """Load parameters read by `read_parameters` into a network.

    Args:
        path: the file they were read from, for messages.
        options: the source of the network's options, for messages.
        strict: if False, load only parameters whose names and shapes match.
    Raises:
        InputError: they do not fit the network; the message has the number of differences and the first one.
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
        raise InputError(
            f"expected a readable checkpoint of tensors, got {path}, which does not load ({first_line(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")
    return content


def _without_prefixes(tensors: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Remove the prefixes of wrappers; if only some names have one, drop the others, which belong to the wrapper."""
    tensors = OrderedDict((name.replace(COMPILED, ""), tensor) for name, tensor in tensors.items())
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = OrderedDict(
                (name.removeprefix(prefix), t) for name, t in tensors.items() if name.startswith(prefix)
            )
    return tensors

"""Read a network's parameters from every spelling of a checkpoint that is in use."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bidiffsr_arch.errors import InputError

# SR3's published checkpoints hold the whole diffusion: the network behind a prefix, and the schedule as buffers beside
# it.
PREFIXES = ("module.", "denoise_fn.")
CONTAINERS = ("params_ema", "params", "state_dict")


def read_checkpoint(path: str | Path, param_key: str | None = "params") -> tuple[OrderedDict[str, Tensor], str]:
    """Parameters of a network, with prefixes removed, and the key under which they were found.

    Args:
        path: a file written by ``torch.save``; it is read with ``weights_only=True``, so no code in it can run.
        param_key: the wanted entry (``params``, ``params_ema``); where the file lacks it, the first of `CONTAINERS`
            that it has is taken,
            and a file that is a bare state dict is taken as it is (key ``.``).
    Raises:
        InputError: no such file, not a checkpoint, no parameters in it, or some that are NaN.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"expected a checkpoint at {path}, got no such file; check path: pretrain_network_g") from None
    except Exception as error:  # whatever damaged and foreign bytes may raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"expected a readable checkpoint of tensors, got {path}, which does not load ({reason})"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")

    found = next(
        (key for key in (param_key, *CONTAINERS) if key is not None and isinstance(content.get(key), Mapping)), None
    )
    parameters = content if found is None else content[found]
    tensors = OrderedDict((name, value) for name, value in parameters.items() if isinstance(value, Tensor))
    if not tensors:
        raise InputError(
            f"expected parameters under {param_key!r} in {path}, got the keys {', '.join(map(str, list(content)[:8]))}"
        )
    lost = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if lost:
        raise InputError(
            f"expected numbers in {path}, got NaN or infinity in {len(lost)} tensors, {lost[0]} among them; use an "
            "earlier checkpoint"
        )
    return _strip(tensors), found or "."


def _strip(tensors: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Remove wrappers' prefixes; where only some names have one, the others belong to the wrapper and are left out."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = OrderedDict(
                (name.removeprefix(prefix), t) for name, t in tensors.items() if name.startswith(prefix)
            )
    return OrderedDict(tensors)

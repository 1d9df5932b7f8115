"""The description stored in a weights file, with which the file can be used without an option file.

A description is a JSON dictionary: ``network_g`` and the other top-level options that sampling needs, ``steps``, and
``about``, information for people (``title``, ``license``, ``author``, ``date``, ``data``, ``results``); in packed files
with several sets of parameters also ``sets``, a description of each further set. Training checkpoints contain it under
the key ``description``. A ``.safetensors`` contains it three times: in the header's ``description``; as keys
``modelspec.*`` in the header, which user interfaces show; and as a small uint8 tensor, because many programs pass on
tensors only.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

KEY = "description"
TENSOR = "bidiffsr.description"
OPTIONS = ("network_g", *DiffusionOptions.model_fields)
TITLES = {"BIDiffSRUNet": "BI-DiffSR", "SR3UNet": "SR3"}  # diffusion networks, also without a ``beta_schedule``
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # ModelSpec's names
SPEC = "1.0.1"


def describe(options: Mapping[str, Any], **further: Any) -> dict[str, Any]:
    """A description from an option file's options.

    Args:
        options: those in `OPTIONS` are used, others are ignored.
        further: ``steps`` and ``about``.
    """
    known = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    return _plain(known | {name: value for name, value in further.items() if value is not None})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def usable(description: Any) -> dict[str, Any] | None:
    """The used keys of a description from a file; all others, such as ``plugins``, are dropped for safety."""
    if not isinstance(description, Mapping):
        return None
    return {name: description[name] for name in (*OPTIONS, "steps", "about") if description.get(name) is not None}


def to_tensor(description: Mapping[str, Any]) -> Tensor:
    """The description as JSON in UTF-8, (bytes,) uint8."""
    return torch.frombuffer(bytearray(json.dumps(description).encode()), dtype=torch.uint8)


def from_tensors(tensors: Mapping[str, Any]) -> dict[str, Any] | None:
    """The description among the tensors of a state dict; None if there is none or it cannot be read."""
    tensor = tensors.get(TENSOR)
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8:
        return None
    try:
        content = json.loads(tensor.cpu().numpy().tobytes())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def read_description(path: Path | str) -> dict[str, Any] | None:
    """The description in a ``.safetensors``; None if it has none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {}).get(KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"expected a description in {path}, could not read it ({error}); copy it again") from error
    return content if isinstance(content, dict) else None


def described(
    tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors`` with a description."""
    content = {name: tensor.contiguous() for name, tensor in tensors.items()} | {TENSOR: to_tensor(description)}
    return content, {KEY: json.dumps(description), **modelspec(description, _digest(content))}


def modelspec(description: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """Metadata by Stability AI's ModelSpec, which user interfaces show.

    Args:
        sha256: digest of the file's tensors, in hexadecimal.
    """
    kind, about = description["network_g"].get("type", "BIDiffSRUNet"), description.get("about", {})
    scale, schedule = description.get("scale"), description.get("beta_schedule") or {}
    predicts = schedule.get("prediction_type", "epsilon") if schedule or kind in TITLES else ""
    spec = {
        "sai_model_spec": SPEC,
        "architecture": kind.lower(),
        "implementation": "bidiffsr_arch",
        "title": about.get("title") or " ".join([TITLES.get(kind, kind), *[f"x{scale}"] * bool(scale)]),
        "description": f"super-resolution{f' by a factor of {scale}' if scale else ''}",
        "author": about.get("author"),
        "date": about.get("date"),
        "license": about.get("license"),
        "tags": "super-resolution",
        "usage_hint": "basicsr upscale IMAGE -o FOLDER --weights THIS_FILE",
        "prediction_type": PREDICTIONS.get(predicts),
        "hash_sha256": f"0x{sha256}",
    }
    return {f"modelspec.{name}": str(value) for name, value in spec.items() if value}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the bytes after the header of a ``.safetensors``, as ModelSpec defines it."""
    content = save(dict(tensors))
    return hashlib.sha256(memoryview(content)[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def save_float(tensors: Mapping[str, Tensor], path: Path, description: Mapping[str, Any]) -> None:
    """Write float parameters and their description as a ``.safetensors``, atomically."""
    content, metadata = described(tensors, description)
    write_bytes(path, save(content, {"format": "pt", **metadata}))

"""What a weights file says of itself, so that it can be used without an option file.

A description is a dictionary for JSON: ``network_g`` and the other options at an option file's top level that sampling
needs, ``steps``, and ``about``, what people want to know (``title``, ``license``, ``author``, ``date``, ``data``,
``results``); in packed files with several sets of parameters also ``sets``, a description of each further one.
Checkpoints of training hold it under the key ``description``. A ``.safetensors`` has it three times: in
the header's ``description``; as keys ``modelspec.*`` in the header, which user interfaces show; and as a small tensor
of uint8, since many programs hand on tensors alone.
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

from bidiffsr_arch.config.diffusion import Trained
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

KEY = "description"
TENSOR = "bidiffsr.description"
OPTIONS = ("network_g", *Trained.model_fields)
TITLES = {"BIDiffSRUNet": "BI-DiffSR", "SR3UNet": "SR3"}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # ModelSpec's names
SPEC = "1.0.1"


def describe(options: Mapping[str, Any], **further: Any) -> dict[str, Any]:
    """A description from an option file's options.

    Args:
        options: `OPTIONS`, those that are known; others are left out.
        further: ``steps`` and ``about``.
    """
    known = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    return _plain(known | {name: value for name, value in further.items() if value is not None})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def usable(description: Any) -> dict[str, Any] | None:
    """What of a description from elsewhere is used; no other key of it has a meaning, ``plugins`` least of all."""
    if not isinstance(description, Mapping):
        return None
    return {name: description[name] for name in (*OPTIONS, "steps", "about") if description.get(name) is not None}


def to_tensor(description: Mapping[str, Any]) -> Tensor:
    """The description as JSON in UTF-8, (bytes,) uint8."""
    return torch.frombuffer(bytearray(json.dumps(description).encode()), dtype=torch.uint8)


def from_tensors(tensors: Mapping[str, Any]) -> dict[str, Any] | None:
    """The description among a state dict's tensors; None if there is none that can be read."""
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
    """Tensors and metadata of a ``.safetensors`` that says what it is."""
    content = {name: tensor.contiguous() for name, tensor in tensors.items()} | {TENSOR: to_tensor(description)}
    return content, {KEY: json.dumps(description), **modelspec(description, _digest(content))}


def modelspec(description: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """Stability AI's ModelSpec: what user interfaces show of a weights file.

    Args:
        sha256: digest of the file's tensors, in hexadecimal.
    """
    kind, about = description["network_g"].get("type", "BIDiffSRUNet"), description.get("about", {})
    scale = description.get("scale")
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
        "prediction_type": PREDICTIONS.get((description.get("beta_schedule") or {}).get("prediction_type", "epsilon")),
        "hash_sha256": f"0x{sha256}",
    }
    return {f"modelspec.{name}": str(value) for name, value in spec.items() if value}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of what follows the header in a ``.safetensors``, as ModelSpec counts it."""
    content = save(dict(tensors))
    return hashlib.sha256(memoryview(content)[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def save_float(tensors: Mapping[str, Tensor], path: Path, description: Mapping[str, Any]) -> None:
    """Write float parameters as a ``.safetensors`` that says what it is; it appears as a whole or not at all."""
    content, metadata = described(tensors, description)
    write_bytes(path, save(content, {"format": "pt", **metadata}))

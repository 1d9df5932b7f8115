"""Save networks to folders in the Hub's layout, load them, and upload them to the Hub."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bidiffsr_arch import hub
from bidiffsr_arch.description import describe, save_float
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, load_weights
from bidiffsr_arch.packed import Description, PackedNetwork, save_packed


def load_pretrained(
    name_or_folder: str | Path, revision: str | None = None, packed: bool | None = None, quality: str | None = None
) -> Weights:
    """Load weights from a folder in the Hub's layout, or from the Hub.

    Args:
        name_or_folder: a folder, ``OWNER/NAME`` or ``hf://OWNER/NAME``.
        revision: branch, tag or commit.
        packed, quality: as in `load_weights`.
    Raises:
        InputError: neither a folder nor a repository on the Hub, or the weights or their options are wrong.
    """
    source = str(name_or_folder)
    if not source.startswith(hub.SCHEME) and not Path(os.path.expanduser(source)).exists():
        source = hub.SCHEME + source
    return load_weights(hub.local(source, revision), packed=packed, quality=quality)


def network_from(kind: type[nn.Module], name_or_folder: str | Path, revision: str | None = None) -> nn.Module:
    """Load a float network of this class.

    Raises:
        InputError: as `load_pretrained`, or the network is of another class.
    """
    weights = load_pretrained(name_or_folder, revision)
    if not isinstance(weights.network, kind):
        raise InputError(f"expected a {kind.__name__} in {name_or_folder}, got a {type(weights.network).__name__}")
    vars(weights.network)["trained"] = {name: value for name, value in weights.options.items() if name != "network_g"}
    return weights.network


def save_pretrained(
    network: nn.Module,
    folder: str | Path,
    options: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    address: str = hub.ANY_FOLDER,
) -> Path:
    """Write config.json, model.safetensors and a model card of a float or packed network.

    Args:
        options: ``network_g``, ``scale`` and the other options that sampling needs, as at an option file's top level.
        about: further entries of the card, see `archs.pretrained.Pretrained.save_pretrained`.
        address: see `hub.model_card`.
    Raises:
        InputError: options are missing, or such files exist and `overwrite` is not set.
    """
    folder = Path(os.path.expanduser(folder))
    taken = [name for name in (hub.CONFIG, hub.WEIGHTS, hub.CARD) if (folder / name).exists()]
    if taken and not overwrite:
        raise InputError(f"expected a folder without {taken[0]}, got {folder}; choose another one or overwrite=True")
    if not options.get("network_g") or options.get("scale") is None:
        raise InputError("expected `network_g` and `scale` among the options, as the network was trained with")
    steps = options.get("steps") or (options.get("beta_schedule") or {}).get("num_inference_steps")
    description = describe(options, steps=steps, about=dict(about) if about else options.get("about"))
    if isinstance(network, PackedNetwork):
        save_packed(network, folder / hub.WEIGHTS, Description.read(description), overwrite=overwrite)
    else:
        save_float(network.state_dict(), folder / hub.WEIGHTS, description)
    hub.write_config(folder, description, address)
    return folder


def push_to_hub(
    network: nn.Module, name: str, options: Mapping[str, Any], about: Mapping[str, Any] | None = None, **upload: Any
) -> str:
    """Upload the files of `save_pretrained`, and return the URL of the commit.

    Args:
        name, upload: as in `hub.upload`: the repository; ``private``, ``token`` and ``commit_message``.
    Raises:
        InputError: as `save_pretrained` and `hub.upload`.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(network, folder, options, about, address=f"{hub.SCHEME}{name}")
        return hub.upload(Path(folder), name, **upload)

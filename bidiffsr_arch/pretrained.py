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
    text = str(name_or_folder)
    is_address = text.startswith(hub.SCHEME) or not Path(os.path.expanduser(text)).exists()
    address = text if text.startswith(hub.SCHEME) or not is_address else hub.SCHEME + text
    return load_weights(hub.local(address, revision), packed=packed, quality=quality)


def network_from(kind: type[nn.Module], name_or_folder: str | Path, revision: str | None = None) -> nn.Module:
    """Load a float network of this class.

    Raises:
        InputError: as `load_pretrained`, or the network is of another class.
    """
    weights = load_pretrained(name_or_folder, revision)
    network = weights.network
    if not isinstance(network, kind):
        raise InputError(f"expected a {kind.__name__} in {name_or_folder}, got a {type(network).__name__}")
    vars(network)["trained"] = {name: value for name, value in weights.options.items() if name != "network_g"}
    return network


def save_pretrained(
    network: nn.Module,
    folder: str | Path,
    options: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write config.json, model.safetensors and a model card.

    Args:
        network: a float or packed network.
        options: ``network_g``, ``scale`` and the other options that sampling needs, as at an option file's top level.
        about: further entries of the card: ``title``, ``license``, ``author``, ``date``, ``data``, and ``results``,
            a dictionary of numbers by data set.
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
    hub.write_config(folder, description)
    return folder


def push_to_hub(
    network: nn.Module,
    name: str,
    options: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload network",
) -> str:
    """Upload the files of `save_pretrained`.

    Args:
        name: ``OWNER/NAME``; the repository is created if it does not exist.
        private: whether a new repository is private.
        token: access token of the Hub; the stored one if None.
    Returns:
        URL of the commit.
    Raises:
        InputError: as `save_pretrained`, or the Hub refuses it.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(network, folder, options, about)
        return hub.upload(Path(folder), name, private=private, token=token, message=commit_message)

"""Folders in the layout of the Hugging Face Hub (config.json, model.safetensors, README.md), and the Hub itself.

Only these files of a repository are downloaded, and no code from it is run. `huggingface_hub` is imported by functions
that need it; it reads ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and its other environment variables.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

SCHEME = "hf://"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ANY_FOLDER = "FOLDER"
INSTALL = (
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    "python -m bidiffsr_arch.compat.install && pip install '.[fast]'",
)
ADDRESS = re.compile(r"(?P<name>[^/@\s]+/[^/@\s]+)(@(?P<revision>[^\s]+?))?(/(?P<file>[^/@\s]+\.safetensors))?")


def local(source: str | Path, revision: str | None = None) -> Path:
    """The local path of a file or folder; one on the Hub is downloaded, unless it is in the cache.

    Args:
        source: a path, or ``hf://OWNER/NAME``, which may be followed by ``@REVISION`` and by ``/FILE.safetensors``.
        revision: branch, tag or commit, if the address names none.
    Raises:
        InputError: the address is wrong, or cannot be downloaded.
    """
    text = str(source)
    if not text.startswith(SCHEME):
        return Path(os.path.expanduser(source))
    address = ADDRESS.fullmatch(text.removeprefix(SCHEME))
    if address is None:
        raise InputError(f"expected hf://OWNER/NAME, optionally with @REVISION or /FILE.safetensors, got {text}")
    return fetch(address["name"], address["revision"] or revision, address["file"])


def fetch(name: str, revision: str | None = None, file: str | None = None) -> Path:
    """Download the config and weights of a repository, unless they are in the cache.

    Args:
        name: ``OWNER/NAME``.
        file: download and return this file alone; if None, return the folder.
    Raises:
        InputError: no such repository, revision or file, or no connection.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if file:
            return Path(hf_hub_download(name, file, revision=revision))
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # raised by huggingface_hub, its HTTP library, or the disk
        at = f" at {revision}" if revision else ""
        raise InputError(f"cannot download {name}{at} from the Hub: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300] or type(error).__name__


def weights_in(folder: Path) -> Path:
    """The weights in a folder of this layout.

    Raises:
        InputError: there are none.
    """
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"expected {WEIGHTS} in {folder}, found none; write it with save_pretrained")
    return folder / WEIGHTS


def read_config(folder: Path) -> dict[str, Any] | None:
    """The description in a folder's config.json; None without the file.

    Raises:
        InputError: the file is not a description.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"expected JSON in {path}, could not read it: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("network_g"), dict):
        raise InputError(f"expected `network_g` in {path}, as save_pretrained writes it, found none")
    return content


def write_config(folder: Path, description: Mapping[str, Any], address: str) -> None:
    """Write config.json and the model card beside the weights; `address` is described in `model_card`."""
    write_bytes(folder / CONFIG, f"{json.dumps(description, indent=2)}\n".encode())
    write_bytes(folder / CARD, model_card(description, address).encode())


def upload(
    folder: Path,
    name: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload network",
) -> str:
    """Upload a folder to a repository, which is created if it does not exist.

    Args:
        name: ``OWNER/NAME``.
        private: whether a new repository is private.
        token: access token of the Hub; the stored one if None.
    Returns:
        The commit's address.
    Raises:
        InputError: the Hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=commit_message))
    except Exception as error:  # as in `fetch`
        raise InputError(f"cannot upload to {name} on the Hub: {_line(error)}") from error


def model_card(description: Mapping[str, Any], address: str = ANY_FOLDER) -> str:
    """A model card, made from the description alone.

    Args:
        address: what to give to ``--weights``, such as ``hf://OWNER/NAME``.
    """
    from huggingface_hub import ModelCardData

    network, about, scale = description["network_g"], description.get("about", {}), description.get("scale")
    schedule = description.get("beta_schedule") or {}
    steps = description.get("steps") or schedule.get("num_inference_steps")
    facts = {
        "upscales by": scale,
        "network": network.get("type"),
        "binarizer": network.get("binarizer"),
        "trained on": about.get("data"),
        "author": about.get("author"),
        "date": about.get("date"),
        "licence": about.get("license"),
        "sampler": schedule.get("scheduler_type"),
        "sampling steps": steps,
    }
    head = ModelCardData(
        library_name="bidiffsr_arch",
        pipeline_tag="image-to-image",
        tags=["super-resolution"],
        license=about.get("license") or None,
    )
    title = about.get("title") or "Super-resolution"
    lines = ["---", head.to_yaml(), "---", "", f"# {title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None]
    if results := about.get("results"):
        lines += ["", "## Results", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in results.items()]
    lines += ["", "## Use", "", "In a clone of bidiffsr_arch, whose README has the rest:", "", "```shell", *INSTALL,
              f"basicsr upscale photo.jpg -o large --weights {address}", "```"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()).replace("|", "/")
    return str(value).replace("|", "/").replace("\n", " ")

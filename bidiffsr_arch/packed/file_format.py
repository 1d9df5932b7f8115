"""Packed networks on disk: a safetensors file with 1 bit per binary weight, whose header contains all options needed to
run it.

Tensors are those of `state.packed_state`. Metadata, all strings:

- ``format``: ``bidiffsr-packed``; ``version``: ``1``;
- ``sha256``: digest of the file's bytes with this digest replaced by 64 zeros;
- ``description``: JSON of `Description`, with the architecture's options and everything that sampling needs;
- ``modelspec.*`` and one further tensor: see `bidiffsr_arch.description`.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import Description
from bidiffsr_arch.description import TENSOR, described
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import architecture_named, packer_for
from bidiffsr_arch.packed.state import expected_shapes

FORMAT, VERSION = "bidiffsr-packed", "1"

NO_SEAL = "0" * 64
"""Placeholder of the checksum while it is computed."""

ONLY_TYPE = "BIDiffSRUNet"
"""The architecture of files that name none, which were written before there were others."""


def sealed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a packed file, its checksum included."""
    content = save(dict(tensors), {**metadata, "sha256": NO_SEAL})
    return content.replace(NO_SEAL.encode(), hashlib.sha256(content).hexdigest().encode(), 1)  # the header comes first


def _digest_without(path: Path, seal: str) -> str:
    """SHA-256 of a safetensors file with `seal` in its header replaced by `NO_SEAL`."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[:data].replace(seal.encode(), NO_SEAL.encode(), 1))
    digest.update(memoryview(content)[data:])
    return digest.hexdigest()


def save_packed(
    network: PackedNetwork, path: Path | str, description: Description, *, half: bool = False, overwrite: bool = False
) -> int:
    """Write a packed network to a file, atomically.

    Args:
        half: store floats as float16.
    Returns:
        Size of the file in bytes.
    Raises:
        InputError: the file exists and `overwrite` is not set, or a number does not fit into float16.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"expected a new file, but {path} exists; choose another name or add --overwrite")
    tensors = {name: tensor.contiguous() for name, tensor in network.state.items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise InputError(f"expected numbers that float16 can hold, {name} has larger ones; leave --half out")
    tensors, metadata = described(tensors, description.model_dump(exclude_unset=True))
    write_bytes(path, sealed(tensors, {"format": FORMAT, "version": VERSION, **metadata}))
    return path.stat().st_size


def load_packed(path: Path | str, backend: str | None = None) -> tuple[PackedNetwork, Description]:
    """Read a packed network, which can be run without other files.

    Args:
        backend: as `PackedNetwork`.
    Raises:
        InputError: no such file, another kind of file, an unknown version, a tensor missing or of another shape, or
        damaged contents.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a packed network at {path}, found no such file; make one with `basicsr pack`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata)
            _check_seal(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(
            f"expected a safetensors file at {path}, could not read it ({error}); copy or pack it again"
        ) from error
    description = _description(path, metadata)
    return assemble(path, description, tensors, backend), description


def assemble(
    source: Path | str, description: Description, tensors: Mapping[str, Tensor], backend: str | None = None
) -> PackedNetwork:
    """Build a packed network from the tensors of a file.

    Args:
        source: name of the file, for messages.
        backend: as `PackedNetwork`.
    Raises:
        InputError: an unknown network, a tensor that is missing or of another shape.
    """
    network = _structure(source, description)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    state.pop(TENSOR, None)  # a copy of the header's description; older files lack it
    _check_shapes(source, expected_shapes(network), state)
    return packer_for(type(network))(network, state, backend)


def _check_kind(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"expected {path} to be a packed network, it is another safetensors file; make one with `basicsr pack`"
        )
    if metadata.get("version") != VERSION:
        raise InputError(
            f"expected version {VERSION} of packed networks, {path} has version {metadata.get('version')}; "
            "update bidiffsr_arch or pack it again"
        )


def _check_seal(path: Path, metadata: Mapping[str, str]) -> None:
    seal = metadata.get("sha256", "")
    if _digest_without(path, seal) != seal:
        raise InputError(
            f"expected {path} to be unchanged since it was written, but its checksum differs: the file is damaged; "
            "copy or pack it again"
        )


def _description(path: Path, metadata: Mapping[str, str]) -> Description:
    try:
        return Description.part_of(json.loads(metadata["description"]))
    except (KeyError, AttributeError, json.JSONDecodeError, InputError) as error:
        raise InputError(
            f"expected a description in the header of {path}, could not read it ({error}); pack it again"
        ) from error


def _structure(path: Path | str, description: Description) -> nn.Module:
    """The network that the stored type and options describe, without memory for its parameters."""
    arguments = dict(description.network_g)
    name = arguments.pop("type", ONLY_TYPE)
    try:
        with torch.device("meta"):
            return architecture_named(name)(**arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}; update bidiffsr_arch, or import the package that packed it") from error
    except TypeError as error:
        raise InputError(f"expected options of {name} in the header of {path}: {error}; pack it again") from error


def _check_shapes(path: Path | str, expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() ^ tensors.keys()):
        kind = "lacks" if name in expected else "has an unknown"
        raise InputError(f"expected in {path} the tensors of its network_g, it {kind} {name}; pack it again")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(
                f"expected {name} in {path} to have shape {shape}, got {tuple(tensors[name].shape)}; pack it again"
            )
        if (tensors[name].dtype == torch.uint8) != name.endswith(".bits"):
            raise InputError(
                f"expected {name} in {path} to be {'bits' if name.endswith('.bits') else 'real numbers'}, "
                f"got {tensors[name].dtype}; pack it again"
            )

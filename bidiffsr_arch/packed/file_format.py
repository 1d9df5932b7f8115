"""Packed networks on disk: a safetensors file with 1 bit per binary weight, whose header contains all options needed to
run it.

Tensors are those of `state.packed_state`. Metadata, all strings:

- ``format``: ``bidiffsr-packed``; ``version``: ``1``, or ``2`` with several sets of parameters;
- ``sha256``: digest of the file's bytes with this digest replaced by 64 zeros;
- ``description``: JSON of `Description`, with the architecture's options and everything that sampling needs;
- ``modelspec.*`` and one further tensor: see `bidiffsr_arch.description`.

A file may contain several sets of parameters, see `QUALITIES`. Tensors of the first set have plain names, those of a
further set ``QUALITY/NAME``; tensors that are equal in both are stored once. Each set has its own description, whose
steps and options may differ; descriptions of further sets are in ``sets`` of the first one.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import Description
from bidiffsr_arch.config.qualities import FIRST, QUALITIES
from bidiffsr_arch.description import TENSOR, described
from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.files import refuse_existing, write_bytes
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import architecture_named, packer_for
from bidiffsr_arch.packed.state import expected_shapes

FORMAT = "bidiffsr-packed"
VERSION, VERSION_WITH_SETS = "1", "2"
VERSIONS = (VERSION, VERSION_WITH_SETS)

OF_SET = "/"
"""Separates the name of a further set from that of a tensor; names of modules do not contain it."""

Sets = Mapping[str, tuple[PackedNetwork, Description]]
"""Packed networks and their descriptions by quality."""

PLACEHOLDER = "0" * 64
"""Stands for the checksum while it is computed."""

FIRST_TYPE = "BIDiffSRUNet"
"""The architecture of files that name none: the only one when they were written."""


def with_checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a packed file, including its checksum."""
    content = save(dict(tensors), {**metadata, "sha256": PLACEHOLDER})
    checksum = hashlib.sha256(content).hexdigest()
    return content.replace(PLACEHOLDER.encode(), checksum.encode(), 1)  # the header comes first


def _checksum(path: Path, stored: str) -> str:
    """SHA-256 of a safetensors file in whose header the stored checksum is replaced by `PLACEHOLDER`."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[:data].replace(stored.encode(), PLACEHOLDER.encode(), 1))
    digest.update(memoryview(content)[data:])
    return digest.hexdigest()


def save_packed(
    network: PackedNetwork,
    path: Path | str,
    description: Description,
    *,
    sets: Sets = MappingProxyType({}),
    half: bool = False,
    overwrite: bool = False,
) -> int:
    """Write a packed network to a file, atomically.

    Args:
        sets: further sets of parameters, under names of `QUALITIES` other than the first. They have the network's scale
            and may have other options.
        half: store floats as float16.
    Returns:
        Size of the file in bytes.
    Raises:
        InputError: the file exists and `overwrite` is not set, a number does not fit into float16, or a further set has
            another scale or an unknown name.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    tensors = first = _stored(network, half)
    for quality, (other, stored) in sets.items():
        choose("a further set", quality, dict.fromkeys(QUALITIES.keys() - {FIRST}))
        if stored.scale != description.scale:
            raise InputError(f"expected sets of one scale, got x{description.scale} and {quality} of x{stored.scale}")
        own = {name: tensor for name, tensor in _stored(other, half).items() if not _is_equal(tensor, first.get(name))}
        tensors = tensors | {f"{quality}{OF_SET}{name}": tensor for name, tensor in own.items()}
    content = description.model_dump(exclude_unset=True, exclude={"sets"})
    if sets:
        content["sets"] = {quality: entry.model_dump(exclude_unset=True) for quality, (_, entry) in sets.items()}
    tensors, metadata = described(tensors, content)
    version = VERSION_WITH_SETS if sets else VERSION
    write_bytes(path, with_checksum(tensors, {"format": FORMAT, "version": version, **metadata}))
    return path.stat().st_size


def _stored(network: PackedNetwork, half: bool) -> dict[str, Tensor]:
    """The tensors of a network as they are written."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state.items()}
    if not half:
        return tensors
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"expected numbers in the range of float16, got larger ones in {name}; leave --half out")
    return tensors


def _is_equal(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(tensor, other)


def load_packed(
    path: Path | str, backend: str | None = None, quality: str | None = None
) -> tuple[PackedNetwork, Description]:
    """Read a packed network; no other files are needed to run it.

    Args:
        backend: as `PackedNetwork`.
        quality: which of the file's sets of parameters, see `QUALITIES`; the first one if None.
    Raises:
        InputError: there is no such file, it is of another kind or version or damaged, or it lacks a set or a tensor.
    """
    tensors, descriptions = _read(Path(path))
    quality = quality or FIRST
    description = choose(f"the quality of {path}", quality, descriptions)
    return assemble(path, description, tensors, backend, quality), description


def load_sets(path: Path | str, backend: str | None = None) -> Sets:
    """All sets of parameters of a packed file, the first one first; arguments and errors as `load_packed`."""
    tensors, descriptions = _read(Path(path))
    return {
        quality: (assemble(path, description, tensors, backend, quality), description)
        for quality, description in descriptions.items()
    }


def read_descriptions(path: Path | str) -> dict[str, Description]:
    """The description of each set of parameters in a packed file; errors as `load_packed`."""
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Description]]:
    """A packed file's tensors, and the description of each set."""
    if not path.is_file():
        raise InputError(f"expected a packed network at {path}, found no such file; make one with `basicsr pack`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata)
            _check_checksum(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(
            f"expected a safetensors file at {path}, could not read it ({error}); copy or pack it again"
        ) from error
    return tensors, _description(path, metadata).by_quality(path)


def assemble(
    source: Path | str,
    description: Description,
    tensors: Mapping[str, Tensor],
    backend: str | None = None,
    quality: str = FIRST,
) -> PackedNetwork:
    """Build a packed network from the tensors of a file.

    Args:
        source: name of the file, for messages.
        description: the set's description.
        tensors: the tensors of all sets.
        backend: as `PackedNetwork`.
        quality: the set.
    Raises:
        InputError: the network is unknown, or a tensor is missing or has another shape.
    """
    network = _structure(source, description)
    expected = expected_shapes(network)
    own = _tensors_of(quality, tensors, expected)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in own.items()}
    _check_shapes(source, expected, state)
    return packer_for(type(network))(network, state, backend)


def _tensors_of(quality: str, tensors: Mapping[str, Tensor], expected: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a set by their plain names; a further set shares the first set's tensors that it lacks."""
    first = {name: tensor for name, tensor in tensors.items() if OF_SET not in name}
    first.pop(TENSOR, None)  # a copy of the header's description; older files lack it
    if quality == FIRST:
        return first
    prefix = f"{quality}{OF_SET}"
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: first[name] for name in expected if name in first} | own


def _check_kind(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"expected a packed network, got {path}, another safetensors file; make one with `basicsr pack`"
        )
    if metadata.get("version") not in VERSIONS:
        raise InputError(
            f"expected version {' or '.join(VERSIONS)} of packed networks, got version {metadata.get('version')} in "
            f"{path}; update bidiffsr_arch or pack it again"
        )


def _check_checksum(path: Path, metadata: Mapping[str, str]) -> None:
    stored = metadata.get("sha256", "")
    if _checksum(path, stored) != stored:
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
    """The network of the stored type and options, on the meta device."""
    arguments = dict(description.network_g)
    name = arguments.pop("type", FIRST_TYPE)
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
        raise InputError(f"expected the tensors of network_g in {path}, which {kind} {name}; pack it again")
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

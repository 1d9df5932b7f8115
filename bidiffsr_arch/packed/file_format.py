"""Packed networks on disk: a safetensors file with 1 bit per binary weight, whose header contains all options needed to
run it.

Tensors are those of `state.packed_state`. Metadata, all strings:

- ``format``: ``bidiffsr-packed``; ``version``: ``1``, or ``2`` with several sets of parameters;
- ``sha256``: digest of the file's bytes with this digest replaced by 64 zeros;
- ``description``: JSON of `Description`, with the architecture's options and everything that sampling needs;
- ``modelspec.*`` and one further tensor: see `bidiffsr_arch.description`.

A file may contain several sets of parameters, see `QUALITIES`. Tensors of the first set have plain names, those of
another set ``QUALITY/NAME``; tensors that are equal in both are stored once. Each set has a description, with steps and
options that may differ; those of further sets are in ``sets`` of the first one.
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

from bidiffsr_arch.config.diffusion import FIRST, QUALITIES, Description
from bidiffsr_arch.description import TENSOR, described
from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.files import write_bytes
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import architecture_named, packer_for
from bidiffsr_arch.packed.state import expected_shapes

FORMAT = "bidiffsr-packed"
VERSION, VERSION_WITH_SETS = "1", "2"
VERSIONS = (VERSION, VERSION_WITH_SETS)

OF_SET = "/"
"""Between a further set's name and that of its tensor; names of modules have none."""

Sets = Mapping[str, tuple[PackedNetwork, Description]]
"""Packed networks and their descriptions by quality."""

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
        another scale or no known name.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"expected a new file, but {path} exists; choose another name or add --overwrite")
    tensors = first = _stored(network, half)
    for quality, (other, said) in sets.items():
        choose("a further set", quality, dict.fromkeys(QUALITIES.keys() - {FIRST}))
        if said.scale != description.scale:
            raise InputError(f"expected sets of one scale, got x{description.scale} and {quality} of x{said.scale}")
        own = {name: tensor for name, tensor in _stored(other, half).items() if not _is_equal(tensor, first.get(name))}
        tensors = tensors | {f"{quality}{OF_SET}{name}": tensor for name, tensor in own.items()}
    content = description.model_dump(exclude_unset=True, exclude={"sets"})
    if sets:
        content["sets"] = {quality: said.model_dump(exclude_unset=True) for quality, (_, said) in sets.items()}
    tensors, metadata = described(tensors, content)
    version = VERSION_WITH_SETS if sets else VERSION
    write_bytes(path, sealed(tensors, {"format": FORMAT, "version": version, **metadata}))
    return path.stat().st_size


def _stored(network: PackedNetwork, half: bool) -> dict[str, Tensor]:
    """The tensors of a network as they are written."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state.items()}
    if not half:
        return tensors
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"expected numbers that float16 can hold, {name} has larger ones; leave --half out")
    return tensors


def _is_equal(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(tensor, other)


def load_packed(
    path: Path | str, backend: str | None = None, quality: str | None = None
) -> tuple[PackedNetwork, Description]:
    """Read a packed network, which can be run without other files.

    Args:
        backend: as `PackedNetwork`.
        quality: which of the file's sets of parameters, see `QUALITIES`; the first one if None.
    Raises:
        InputError: no such file, another kind of file, an unknown version, a set or a tensor missing, a tensor of
        another shape, or damaged contents.
    """
    tensors, descriptions = _read(Path(path))
    quality = quality or FIRST
    description = choose(f"the quality that is taken from {path}", quality, descriptions)
    return assemble(path, description, tensors, backend, quality), description


def load_sets(path: Path | str, backend: str | None = None) -> Sets:
    """All sets of parameters of a packed file, the first one first; arguments and errors as `load_packed`."""
    tensors, descriptions = _read(Path(path))
    return {
        quality: (assemble(path, description, tensors, backend, quality), description)
        for quality, description in descriptions.items()
    }


def read_descriptions(path: Path | str) -> dict[str, Description]:
    """What a packed file says of each of its sets of parameters; errors as `load_packed`."""
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Description]]:
    """A packed file's tensors, and the description of each set."""
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
        description: that of the set.
        tensors: those of all sets.
        backend: as `PackedNetwork`.
        quality: which set.
    Raises:
        InputError: an unknown network, a tensor that is missing or of another shape.
    """
    network = _structure(source, description)
    expected = expected_shapes(network)
    own = _tensors_of(quality, tensors, expected)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in own.items()}
    _check_shapes(source, expected, state)
    return packer_for(type(network))(network, state, backend)


def _tensors_of(quality: str, tensors: Mapping[str, Tensor], expected: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a set by their plain names; a further set shares those of the first that it lacks."""
    first = {name: tensor for name, tensor in tensors.items() if OF_SET not in name}
    first.pop(TENSOR, None)  # what the header says again; older files lack it
    if quality == FIRST:
        return first
    prefix = f"{quality}{OF_SET}"
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: first[name] for name in expected if name in first} | own


def _check_kind(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"expected {path} to be a packed network, it is another safetensors file; make one with `basicsr pack`"
        )
    if metadata.get("version") not in VERSIONS:
        raise InputError(
            f"expected version {' or '.join(VERSIONS)} of packed networks, {path} has version "
            f"{metadata.get('version')}; "
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

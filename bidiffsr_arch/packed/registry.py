"""Registry from architectures to packed classes: ``@packs(BIDiffSRUNet)`` decorates a subclass of `PackedNetwork`."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.state import packed_state
from bidiffsr_arch.plugins import load_plugins

Packer = TypeVar("Packer", bound=type[PackedNetwork])

_PACKERS: dict[type[nn.Module], type[PackedNetwork]] = {}


def packs(architecture: type[nn.Module]) -> Callable[[Packer], Packer]:
    """Register the decorated class as the packed class of an architecture, which files name by its ``__name__``."""

    def register(packer: Packer) -> Packer:
        _PACKERS[architecture] = packer
        return packer

    return register


def packed_architectures() -> dict[str, type[nn.Module]]:
    """The architectures that can be packed, by name."""
    return {architecture.__name__: architecture for architecture in _PACKERS}


def architecture_named(name: Any) -> type[nn.Module]:
    """The architecture of an option file's ``network_g: type``; plugins are loaded for names that are not known.

    Raises:
        InputError: no architecture of this name can be packed; the known names are listed.
    """
    if name not in packed_architectures():
        load_plugins()
    return choose("network_g: type", name, packed_architectures())


def packer_for(kind: type[nn.Module]) -> type[PackedNetwork]:
    """The packed class for networks of class `kind`.

    Raises:
        InputError: there is none, or `kind` is a subclass of an architecture and overrides its `forward`.
    """
    architecture = next((base for base in kind.__mro__ if base in _PACKERS), None)
    if architecture is None:
        known = ", ".join(packed_architectures())
        raise InputError(f"expected a network to pack that is one of {known}, got {kind.__name__}")
    if kind.forward is not architecture.forward:
        raise InputError(
            f"expected {kind.__name__} to compute what {architecture.__name__} does, but it overrides forward; "
            f"register a packer with @packs({kind.__name__})"
        )
    return _PACKERS[architecture]


def pack(network: nn.Module, backend: str | None = None) -> PackedNetwork:
    """Pack a trained network (or its EMA) for inference; the network is not changed.

    Args:
        network: of an architecture that has a packer, or one wrapped for distributed training.
        backend: as `PackedNetwork`.
    Raises:
        InputError: another kind of network, or a layer that cannot be packed.
    """
    network = getattr(network, "module", network)
    return packer_for(type(network))(network, packed_state(network), backend)

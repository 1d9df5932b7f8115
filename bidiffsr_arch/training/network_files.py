"""Loading of network files by every model of BasicSR, in all formats of `find_parameters`, and packed."""

from collections.abc import MutableMapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.networks import is_packed
from bidiffsr_arch.parameters import find_parameters, named_as_in, set_parameters
from bidiffsr_arch.training.packed_networks import packed_for_test


def network_files() -> bool:
    """BasicSR loads its own .pth only, others end in a KeyError: all formats load, or are refused in one line."""
    if not contains(BaseModel.load_network, "param_key = 'params'"):
        return False
    replace_method(BaseModel, "load_network", load_network)
    return True


def load_network(
    self: BaseModel, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """As BasicSR's; in a test, a packed file replaces the network.

    Raises:
        InputError: the file cannot be read, or does not fit the network.
    """
    network = self.get_bare_model(net)
    if is_packed(load_path):
        name = next(name for name, value in vars(self).items() if value is net)
        setattr(self, name, packed_for_test(self, network, load_path, param_key))
        return
    parameters, found = find_parameters(load_path, param_key)
    set_and_log(self, network, named_as_in(network, parameters), load_path, found, strict)


def set_and_log(
    model: BaseModel, network: nn.Module, parameters: MutableMapping[str, Tensor], path: str, found: str, strict: bool
) -> None:
    """Load parameters into a network, and log their file and what differs, as BasicSR does.

    Args:
        found: the parameters' key in the file.
        strict: if False, parameters of other names or shapes are left out.
    Raises:
        InputError: they do not fit the network.
    """
    get_root_logger().info(f"Loading {type(network).__name__} model from {path}, with param key: [{found}].")
    model._print_different_keys_loading(network, parameters, strict)
    set_parameters(network, parameters, path, strict=strict)

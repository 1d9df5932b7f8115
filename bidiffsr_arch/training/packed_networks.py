"""Packed inference in tests and validation of BasicSR's own models, such as SRModel with a direct network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import nn

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import constructor_defaults
from bidiffsr_arch.packed import load_packed, pack
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.parameters import CONTAINERS
from bidiffsr_arch.training.validation import ValidatedSRModel


def packed_validation() -> bool:
    """BasicSR's models ignored ``val: packed``: they validate with the packed network, too."""
    stock = BaseModel.validation
    if contains(stock, "packed"):
        return False

    def validation(self: BaseModel, *args: Any, **kwargs: Any) -> None:
        wanted = self.opt["val"].get("packed") and not isinstance(self, ValidatedSRModel)
        with packed_inference(self) if wanted else nullcontext():
            stock(self, *args, **kwargs)

    replace_method(BaseModel, "validation", validation)
    return True


@contextmanager
def packed_inference(model: BaseModel) -> Iterator[None]:
    """Make the model test with its packed network inside the context: the EMA if there is one, else ``net_g``.

    Raises:
        InputError: the network cannot be packed.
    """
    name = "net_g_ema" if hasattr(model, "net_g_ema") else "net_g"
    network = getattr(model, name)
    setattr(model, name, network if isinstance(network, PackedNetwork) else pack(model.get_bare_model(network)))
    try:
        yield
    finally:
        setattr(model, name, network)


def packed_for_test(model: BaseModel, network: nn.Module, path: str, param_key: str | None) -> PackedNetwork:
    """Load a packed file to replace a model's network in a test.

    Args:
        param_key: a set of parameters of the file, see `QUALITIES`; the first set for keys of checkpoints.
    Raises:
        InputError: the file is damaged or was packed with other options, or the model is for training.
    """
    if model.is_train:
        raise InputError(f"expected a checkpoint to train from, got the packed network {path}, which is for tests")
    packed, description = load_packed(path, quality=None if param_key in CONTAINERS else param_key)
    defaults = constructor_defaults(type(network))
    given = defaults | description.network_g | {"scale": description.scale}
    wanted = defaults | model.opt["network_g"] | {"scale": model.opt["scale"]}
    for key in given.keys() & wanted.keys():
        one, other = (json.dumps(options[key], default=repr) for options in (given, wanted))
        if one != other:  # equal for lists and tuples
            raise InputError(f"expected {key}: {given[key]}, as {path} was packed, got {wanted[key]}")
    get_root_logger().info(f"Loading packed network from {path}, made from {description.source}.")
    return packed

"""Cure of writing checkpoints."""

from pathlib import Path
from typing import Any

from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from torch import nn

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.training.checkpoint_file import save_checkpoint


def whole_checkpoints() -> bool:
    """Checkpoints were written in place, failures ignored: they are written whole or not at all, which ends training.

    A training state also holds the digests of its networks' files, so that pairs that belong together are known.
    """
    if not contains(BaseModel.save_network, "Just ignore it"):
        return False
    replace_method(BaseModel, "save_network", master_only(save_network))
    replace_method(BaseModel, "save_training_state", master_only(save_training_state))
    return True


def save_network(
    self: BaseModel,
    net: nn.Module | list[nn.Module],
    net_label: str,
    current_iter: int,
    param_key: str | list[str] = "params",
) -> None:
    """As BasicSR's: the networks' parameters on the CPU, each under its key; -1 stands for the latest."""
    networks = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    content = {
        key: {name: value.cpu() for name, value in self.get_bare_model(network).state_dict().items()}
        for key, network in zip(keys, networks, strict=True)
    }
    iteration = "latest" if current_iter == -1 else current_iter
    written = save_checkpoint(content, Path(self.opt["path"]["models"], f"{net_label}_{iteration}.pth"))
    vars(self).setdefault("saved_networks", {})[net_label] = written


def save_training_state(self: BaseModel, epoch: int, current_iter: int) -> None:
    """As BasicSR's, with ``networks`` (label: digest) and what the model itself adds as ``further_state``."""
    if current_iter == -1:
        return
    state: dict[str, Any] = {
        "epoch": epoch,
        "iter": current_iter,
        "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
        "networks": dict(getattr(self, "saved_networks", {})),
        **getattr(self, "further_state", {}),
    }
    save_checkpoint(state, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))

"""Checkpoints: a network file, and a training state from which training resumes exactly."""

from pathlib import Path
from typing import Any

from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from torch import nn

from bidiffsr_arch import description
from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.training.checkpoint_file import save_checkpoint
from bidiffsr_arch.training.degradation import pool_state
from bidiffsr_arch.training.random_states import random_states
from bidiffsr_arch.training.session import session_of
from bidiffsr_arch.training.stopping import of_all_processes


def whole_checkpoints() -> bool:
    """Checkpoints were written in place and failures ignored: they are written atomically, and a failure ends training.

    A training state also holds the position in the epoch, the random states and the digests of its network files.
    """
    if not contains(BaseModel.save_network, "Just ignore it"):
        return False
    replace_method(BaseModel, "save_network", master_only(save_network))
    replace_method(BaseModel, "save_training_state", save_training_state)
    return True


def save_network(
    self: BaseModel,
    net: nn.Module | list[nn.Module],
    net_label: str,
    current_iter: int,
    param_key: str | list[str] = "params",
) -> None:
    """As in BasicSR: save the networks' parameters, each under its key; iteration -1 means "latest".

    The file also contains the network's options, so that it can be used without an option file.
    """
    networks = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    content = {
        key: {name: value.cpu() for name, value in self.get_bare_model(network).state_dict().items()}
        for key, network in zip(keys, networks, strict=True)
    }
    if net_label == "net_g":
        content[description.KEY] = description.describe(self.opt)
    iteration = "latest" if current_iter == -1 else current_iter
    written = save_checkpoint(content, Path(self.opt["path"]["models"], f"{net_label}_{iteration}.pth"))
    session_of(self.opt).networks[net_label] = written


def save_training_state(self: BaseModel, epoch: int, current_iter: int) -> None:
    """As in BasicSR, with everything else that later losses depend on; then delete old checkpoints as the options say.

    All processes call it, since each has its own random states; the first one writes.
    """
    if current_iter == -1:
        return
    session = session_of(self.opt)
    everyones = of_all_processes(self, session.random or random_states())
    pools = of_all_processes(self, pool_state(self))
    if self.opt["rank"] == 0:
        state: dict[str, Any] = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "networks": dict(session.networks),
            "position": session.order.after(current_iter).position if session.order else 0,
            "manual_seed": self.opt.get("manual_seed"),
            "options": session.options,
            "random": everyones,
            "pools": [pool for pool in pools if pool is not None],
            "best": _plain(getattr(self, "best_metric_results", {})),
            **getattr(self, "further_states", dict)(),
        }
        save_checkpoint(state, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))
        if session.retention:
            session.retention.prune(current_iter)
    session.saved = current_iter


def _plain(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Best metrics as Python numbers, which torch's safe loader can read."""
    return {
        dataset: {metric: record | {"val": float(record["val"])} for metric, record in records.items()}
        for dataset, records in results.items()
    }

"""Stop training between two iterations: on a signal, or when the loss is not finite."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from torch import distributed
from torch.utils.data import DataLoader

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import CheckFailed, Stopped
from bidiffsr_arch.training import signals
from bidiffsr_arch.training.random_states import random_states, restore_random_states
from bidiffsr_arch.training.session import session_of


def stopping_between_iterations() -> bool:
    """A signal ended training without saving: a state is saved after the current iteration, then training ends."""
    stock = BaseModel.update_learning_rate
    if not contains(stock, "scheduler.step()"):
        return False

    def update_learning_rate(self: BaseModel, current_iter: int, warmup_iter: int = -1) -> None:
        session = session_of(self.opt)
        session.iteration = current_iter - 1
        stop_if_requested(self)
        stock(self, current_iter, warmup_iter)
        session.iteration = current_iter

    replace_method(BaseModel, "update_learning_rate", update_learning_rate)
    return True


def validation_apart() -> bool:
    """Validation changed random states and ignored signals: states are restored, and a signal stops it
    between images."""
    stock = BaseModel.validation
    if not contains(stock, "self.nondist_validation("):
        return False

    def validation(
        self: BaseModel, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        if not self.is_train:
            stock(self, dataloader, current_iter, tb_logger, save_img)
            return
        session = session_of(self.opt)
        session.random = random_states()
        images = dataloader if self.opt["dist"] else StoppableLoader(self, dataloader)
        stock(self, images, current_iter, tb_logger, save_img)
        restore_random_states(session.random)
        session.random = None
        if session.retention and self.opt["rank"] == 0 and _is_first(self.opt, dataloader):
            session.retention.note(session.iteration, getattr(self, "metric_results", {}))

    replace_method(BaseModel, "validation", validation)
    return True


class StoppableLoader:
    """A validation loader that checks for signals between images, since validation can take long."""

    def __init__(self, model: BaseModel, dataloader: DataLoader) -> None:
        self.model, self.dataloader, self.dataset = model, dataloader, dataloader.dataset

    def __len__(self) -> int:
        return len(self.dataloader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.dataloader:
            stop_if_requested(self.model)
            yield batch
        stop_if_requested(self.model)


def stop_if_requested(model: BaseModel) -> None:
    """Save a state and stop if any process has received a signal.

    Raises:
        Stopped: a signal was received; the state of the last iteration is saved.
    """
    if not signals.watching():
        return
    number = int(worst_of_processes(model, signals.requested_signal()))
    if not number:
        return
    session = session_of(model.opt)
    if session.iteration > session.saved:
        model.save(session.order.after(session.iteration).epoch if session.order else 0, session.iteration)
    where = state_file(model.opt) if session.saved else "nothing, as no iteration was done"
    raise Stopped(number, f"stopped after iteration {session.iteration}, saved {where}; resume with --auto_resume")


def refuse_divergence(model: BaseModel, lost: str = "") -> None:
    """Stop training if a loss is not finite in any process, or if `lost` describes other values that are not finite.

    Raises:
        CheckFailed: training has diverged; the message names the last good checkpoint.
    """
    losses = {name: float(value) for name, value in getattr(model, "log_dict", {}).items()}
    lost = next((f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)), lost)
    if worst_of_processes(model, bool(lost)):
        session = session_of(model.opt)
        last_good = state_file(model.opt) if session.saved else "none (nothing was saved)"
        raise CheckFailed(
            f"training has diverged at iteration {session.iteration}: {lost or 'a loss is not finite'}. The last good "
            f"checkpoint is {last_good}; lower train: optim_g: lr and resume from it"
        )


def nonfinite_weights(network: torch.nn.Module) -> str:
    """A message that says which weights of a network are not finite; empty if all are."""
    lost = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    return f"{len(lost)} weights of the network are not finite, {lost[0]} among them" if lost else ""


def state_file(opt: dict[str, Any]) -> Path:
    """The training state that was saved last."""
    return Path(opt["path"]["training_states"], f"{session_of(opt).saved}.state")


def worst_of_processes(model: BaseModel, value: float) -> float:
    """The maximum of a value over all processes."""
    if not model.opt["dist"]:
        return value
    shared = torch.tensor(float(value), device=model.device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return shared.item()


def of_all_processes(model: BaseModel, value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if not model.opt["dist"]:
        return [value]
    values = [None] * model.opt["world_size"]
    distributed.all_gather_object(values, value)
    return values


def _is_first(opt: dict[str, Any], dataloader: DataLoader) -> bool:
    """Whether a loader is that of the first validation set, whose scores select the best checkpoint."""
    first = next(data for phase, data in opt["datasets"].items() if phase.split("_")[0] == "val")
    dataset: Any = dataloader.dataset
    return dataset.opt["name"] == first["name"]

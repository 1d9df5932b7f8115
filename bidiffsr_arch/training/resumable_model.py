"""A SRModel whose training can be stopped anywhere and goes on as if it had not been."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from bidiffsr_arch.errors import CheckFailed, Stopped
from bidiffsr_arch.training import signals
from bidiffsr_arch.training.random_states import random_states, restore_random_states
from bidiffsr_arch.training.retention import Retention
from bidiffsr_arch.training.sample_order import Place, places_of
from bidiffsr_arch.training.spread_model import SpreadSRModel


class ResumableSRModel(SpreadSRModel):
    """Saves and restores what the losses after a resume depend on, leaves on signals, and stops where a loss is lost.

    A training state holds, beside BasicSR's entries, the position in the epoch, the random states of every process, the
    seed and the best metrics; the averaged network (EMA) and BatchNorm's statistics lie in the network's file of the
    same iteration, whose digest the state knows. Everything else follows from the iteration.
    """

    def init_training_settings(self) -> None:
        super().init_training_settings()
        self.retention = Retention(self.opt)
        self.places: list[Place] = []
        self.next_place = Place(0, 0)
        self.iteration = self.saved_iteration = 0
        self.states_before_validation: dict[str, Any] | None = None

    def feed_data(self, data: dict[str, Any]) -> None:
        """As BasicSR's; remembers the places of the samples."""
        super().feed_data(data)
        self.places = places_of(data)
        if self.places:
            last, rank, processes = self.places[-1], self.opt["rank"], self.opt["world_size"]
            self.next_place = Place(last.epoch, last.position - rank + processes)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """As BasicSR's. Being between two iterations, this is where training is left.

        Raises:
            CheckFailed: the last loss is not a number, or infinite.
            Stopped: a signal asked to stop; a state of the last iteration is saved.
        """
        self.iteration = current_iter - 1
        self._leave_if_asked()
        super().update_learning_rate(current_iter, warmup_iter)
        self.iteration = current_iter

    def save(self, epoch: int, current_iter: int) -> None:
        """As BasicSR's, for a network whose numbers are numbers.

        Raises:
            CheckFailed: a loss or a weight is not finite; nothing is written then.
            InputError: the files cannot be written.
        """
        self._refuse_divergence(self._lost_weights())
        self.further_state = {
            "position": self.next_place.position,
            "manual_seed": self.opt["manual_seed"],
            "random": self._of_all_processes(self.states_before_validation or random_states()),
            "best": _plain(getattr(self, "best_metric_results", {})),
            **self.further_states(),
        }
        super().save(epoch, current_iter)
        if current_iter != -1:
            self.saved_iteration = current_iter
            if self.opt["rank"] == 0:
                self.retention.prune()

    def further_states(self) -> dict[str, Any]:
        """What a subclass wants in the state, by a name of its own."""
        return {}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """As BasicSR's, then everything else that `save` has put into the state."""
        super().resume_training(resume_state)
        self.iteration = self.saved_iteration = resume_state["iter"]
        self.next_place = Place(resume_state["epoch"], resume_state.get("position", 0))
        if resume_state.get("best"):
            self.best_metric_results = resume_state["best"]
        states = resume_state.get("random", [])
        if len(states) == self.opt["world_size"]:
            restore_random_states(states[self.opt["rank"]])

    def validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
        """As BasicSR's; leaves training's random states as they are, and notes down what ``keep_best`` compares."""
        if not self.is_train:
            super().validation(dataloader, current_iter, tb_logger, save_img)
            return
        self.states_before_validation = random_states()
        super().validation(dataloader, current_iter, tb_logger, save_img)
        restore_random_states(self.states_before_validation)
        self.states_before_validation = None
        if self.opt["rank"] == 0 and self._is_first(dataloader):
            self.retention.note(self.iteration, getattr(self, "metric_results", {}))

    def between_pictures(self) -> None:
        """Training may be left during a validation, too, which can take long."""
        if self.is_train:
            self._leave_if_asked()

    def _is_first(self, dataloader: Any) -> bool:
        first = next(data for phase, data in self.opt["datasets"].items() if phase.split("_")[0] == "val")
        return dataloader.dataset.opt["name"] == first["name"]

    def _leave_if_asked(self) -> None:
        """Save a state and leave if a signal has come to any of the processes."""
        self._refuse_divergence()
        number = int(self._worst(signals.asked()))
        if not number:
            return
        if self.iteration > self.saved_iteration:
            self.save(self.next_place.epoch, self.iteration)
        where = self._state_file() if self.saved_iteration else "nothing, as no iteration was done"
        raise Stopped(number, f"stopped after iteration {self.iteration}, saved {where}; go on with --auto_resume")

    def _refuse_divergence(self, lost: str = "") -> None:
        """Stop where a loss is not a finite number in any of the processes, or where `lost` says what else is not."""
        losses = {name: float(value) for name, value in getattr(self, "log_dict", {}).items()}
        lost = next((f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)), lost)
        if self._worst(bool(lost)):
            last_good = self._state_file() if self.saved_iteration else "none (nothing was saved)"
            raise CheckFailed(
                f"training has diverged at iteration {self.iteration}: {lost or 'a loss is not finite'}. The last good "
                f"checkpoint is {last_good}; lower train: optim_g: lr and go on from there"
            )

    def _lost_weights(self) -> str:
        """What of the network is no number any more; empty where all of it is."""
        named = self.get_bare_model(self.net_g).state_dict().items()
        lost = [name for name, value in named if not torch.isfinite(value).all()]
        return f"{len(lost)} weights of the network are not finite, {lost[0]} among them" if lost else ""

    def _state_file(self) -> Path:
        return Path(self.opt["path"]["training_states"], f"{self.saved_iteration}.state")

    def _worst(self, value: float) -> float:
        """The largest of the processes' values."""
        if not self.opt["dist"]:
            return value
        shared = torch.tensor(float(value), device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return shared.item()

    def _of_all_processes(self, value: Any) -> list[Any]:
        if not self.opt["dist"]:
            return [value]
        values = [None] * self.opt["world_size"]
        distributed.all_gather_object(values, value)
        return values


def _plain(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Best metrics with Python's own numbers, which torch's safe loader takes."""
    return {
        dataset: {metric: record | {"val": float(record["val"])} for metric, record in records.items()}
        for dataset, records in results.items()
    }

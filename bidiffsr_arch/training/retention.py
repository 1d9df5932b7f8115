"""Deletion of old checkpoints (network and training state) by ``logger: keep_newest`` and ``keep_best``.

The best checkpoint is that with the best score on the first validation set, among all that were validated.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.utils import get_root_logger

from bidiffsr_arch.config.struct import one_line
from bidiffsr_arch.config.training import Metric, RetentionOptions, unknown_best
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

SCORES = "scores.json"


def retention_of(opt: Mapping[str, Any]) -> "Retention":
    """Create the `Retention` of BasicSR's options.

    Raises:
        InputError: ``keep_newest`` is not an integer, or ``keep_best`` is not a metric of the file.
    """
    kept = RetentionOptions.part_of(opt.get("logger") or {}, place="logger")
    metrics = (opt.get("val") or {}).get("metrics") or {}
    if wrong := list(unknown_best(kept, metrics)):
        raise InputError(one_line(wrong, ""))
    best = Metric.part_of(metrics[kept.keep_best]) if kept.keep_best is not None else None
    return Retention(kept, best, *(Path(opt["path"][key]) for key in ("models", "training_states")))


class Retention:
    """Deletes old checkpoints, and stores scores in models/scores.json, {iteration: value}.

    Args:
        kept: number of newest checkpoints to keep, and the metric of the best one.
        metric: options of that metric; None without one.
        models: folder of the networks; states: folder of the training states.
    """

    def __init__(self, kept: RetentionOptions, metric: Metric | None, models: Path, states: Path) -> None:
        self.newest, self.metric = kept.keep_newest, kept.keep_best
        self.models, self.states = models, states
        self.higher_is_better = metric is None or metric.better == "higher"

    def note(self, iteration: int, results: Mapping[str, float]) -> None:
        """Record the score of the network after `iteration` if it is finite."""
        if self.metric is not None and math.isfinite(results.get(self.metric, math.nan)):
            earlier = {past: score for past, score in self._scores().items() if past < iteration}
            scores = {str(past): score for past, score in (earlier | {iteration: float(results[self.metric])}).items()}
            write_bytes(self.models / SCORES, json.dumps(scores, indent=1).encode())

    def prune(self, newest: int) -> None:
        """Delete checkpoints, a training state before its networks, so that a kill leaves no state without networks.

        Args:
            newest: the iteration saved last. Checkpoints of higher iterations are from before this run resumed an
                earlier state; they are deleted, too, because --auto_resume would resume from them.
        """
        if self.newest is None:
            return
        saved = sorted((int(path.stem) for path in self.states.glob("*.state") if path.stem.isdigit()), reverse=True)
        own = [iteration for iteration in saved if iteration <= newest]
        kept = {*own[: self.newest], *self._best(own)}
        for iteration in (iteration for iteration in saved if iteration not in kept):
            files = [self.states / f"{iteration}.state", *self.models.glob(f"net_*_{iteration}.pth")]
            for file in files:
                file.unlink(missing_ok=True)
            get_root_logger().info(f"Deleted the checkpoint of iteration {iteration} (logger: keep_newest).")

    def _scores(self) -> dict[int, float]:
        """The finite scores by iteration; empty if the file cannot be read, so that training continues."""
        file = self.models / SCORES
        try:
            scores = {int(iteration): float(score) for iteration, score in json.loads(file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            get_root_logger().warning(f"{file} cannot be read ({error}); the record of scores starts empty")
            return {}
        return {iteration: score for iteration, score in scores.items() if math.isfinite(score)}

    def _best(self, saved: list[int]) -> list[int]:
        if self.metric is None:
            return []
        scores = {iteration: score for iteration, score in self._scores().items() if iteration in saved}
        ranked = sorted(scores, key=lambda iteration: (scores[iteration], iteration), reverse=self.higher_is_better)
        return ranked[:1]

"""Which checkpoints of a run are kept on the disk.

Option block ``logger``, both off (``~``) by default:
    keep_newest: how many of the newest checkpoints (network and training state) are kept; older ones are deleted.
    keep_best: a metric of ``val: metrics``; of the checkpoints that were validated, the best by it (on the file's
        first validation set) is kept as well, whatever its age.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.utils import get_root_logger

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import write_bytes

SCORES = "scores.json"
IS_HIGHER = {"higher": True, "lower": False}


class Retention:
    """Deletes what `keep_newest` and `keep_best` do not keep. Scores are in models/scores.json, {iteration: value}.

    Raises:
        InputError: options that are no count or no metric of the file.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        logger, metrics = opt.get("logger") or {}, (opt.get("val") or {}).get("metrics") or {}
        self.newest, self.metric = logger.get("keep_newest"), logger.get("keep_best")
        self.models, self.states = (Path(opt["path"][key]) for key in ("models", "training_states"))
        if self.newest is not None and (type(self.newest) is not int or self.newest < 1):
            raise InputError(f"expected logger: keep_newest to be a whole number from 1 on, or ~, got {self.newest!r}")
        if self.metric is not None and self.metric not in metrics:
            known = ", ".join(metrics) or "none"
            raise InputError(f"expected logger: keep_best to be one of val: metrics ({known}), got {self.metric!r}")
        if self.metric is not None and self.newest is None:
            raise InputError("expected logger: keep_newest beside keep_best, got none: nothing would be deleted")
        if self.metric is not None:
            self.higher_is_better = IS_HIGHER[metrics[self.metric].get("better", "higher")]

    def note(self, iteration: int, results: Mapping[str, float]) -> None:
        """Note down the score of the network after `iteration`; one that is not finite is none."""
        if self.metric is not None and math.isfinite(results.get(self.metric, math.nan)):
            earlier = {past: score for past, score in self._scores().items() if past < iteration}
            scores = {str(past): score for past, score in (earlier | {iteration: float(results[self.metric])}).items()}
            write_bytes(self.models / SCORES, json.dumps(scores, indent=1).encode())

    def prune(self, newest: int) -> None:
        """Delete checkpoints, a training state before its networks, so that a kill leaves no state without them.

        Args:
            newest: the iteration that was saved last. Higher ones are what another run left behind when this one went
                back to an earlier state; they are deleted, too, as --auto_resume would take them for the newest.
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
        """The finite scores by iteration; none where the file cannot be read, since training goes on without them."""
        file = self.models / SCORES
        try:
            scores = {int(iteration): float(score) for iteration, score in json.loads(file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            get_root_logger().warning(f"{file} cannot be read ({error}); scores are noted down anew")
            return {}
        return {iteration: score for iteration, score in scores.items() if math.isfinite(score)}

    def _best(self, saved: list[int]) -> list[int]:
        if self.metric is None:
            return []
        scores = {iteration: score for iteration, score in self._scores().items() if iteration in saved}
        ranked = sorted(scores, key=lambda iteration: (scores[iteration], iteration), reverse=self.higher_is_better)
        return ranked[:1]

"""Which loss an iteration has: `train: pixel_opt` first, then those of `train: loss_schedule`."""

from collections.abc import Sequence

import torch
from basicsr.losses import build_loss

from bidiffsr_arch.config.training import LossChange
from bidiffsr_arch.training.objective import Loss


class LossSchedule:
    """Losses by iteration. The choice depends on the iteration alone, so that a resumed training makes the same.

    A loss that draws predictions to the mean, such as mean squared error, teaches a zero-initialised network quickly
    where targets have a median of 0; one that draws them to the median, such as L1, ends with sharper images.

    Args:
        first: the loss of iteration 1.
        changes: those that follow, by rising iteration.
        device: where predictions are.
    """

    def __init__(self, first: Loss, changes: Sequence[LossChange], device: torch.device) -> None:
        self.losses: list[tuple[int, Loss]] = [(1, first)]
        for change in changes:
            block = {"type": change.type} | (change.model_extra or {})
            self.losses.append((change.from_iter, build_loss(block).to(device)))

    def at(self, iteration: int) -> Loss:
        """The loss of an iteration, from 1 on."""
        return next(loss for start, loss in reversed(self.losses) if start <= iteration)

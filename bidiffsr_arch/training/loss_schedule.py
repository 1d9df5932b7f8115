"""Which loss an iteration has: `train: pixel_opt` first, then those of `train: loss_schedule`."""

from collections.abc import Sequence

import torch
from basicsr.losses import build_loss
from torch import nn

from bidiffsr_arch.config.training import LossChange


class LossSchedule:
    """Losses by iteration. The choice depends on the iteration alone, so that a resumed training makes the same.

    Mean squared error draws predictions to the mean of targets, and so teaches a zero-initialised network where their
    median is 0, as that of residuals; L1, the usual loss of super-resolution, draws them to the median.

    Args:
        first: the loss of iteration 1.
        changes: those that follow, by rising iteration.
        device: where predictions are.
    """

    def __init__(self, first: nn.Module, changes: Sequence[LossChange], device: torch.device) -> None:
        self.losses: list[tuple[int, nn.Module]] = [(1, first)]
        for change in changes:
            block = {"type": change.type} | (change.model_extra or {})
            self.losses.append((change.from_iter, build_loss(block).to(device)))

    def at(self, iteration: int) -> nn.Module:
        """The loss of an iteration, from 1 on."""
        return next(loss for start, loss in reversed(self.losses) if start <= iteration)

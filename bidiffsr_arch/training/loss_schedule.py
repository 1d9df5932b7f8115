"""The loss by iteration: `train: pixel_opt` first, then those of `train: loss_schedule`."""

from collections.abc import Sequence

import torch
from basicsr.losses import build_loss
from torch import nn

from bidiffsr_arch.config.training import LossChange


class LossSchedule:
    """Losses by iteration. The choice depends on the iteration only, so that a resumed training uses the same losses.

    Mean squared error moves predictions to the mean of targets and therefore trains a zero-initialised network even if
    their median is 0, like that of residuals; L1, the usual loss of super-resolution, moves them to the median.

    Args:
        first: the loss of iteration 1.
        changes: the following losses, sorted by iteration.
        device: device of the predictions.
    """

    def __init__(self, first: nn.Module, changes: Sequence[LossChange], device: torch.device) -> None:
        self.losses: list[tuple[int, nn.Module]] = [(1, first)]
        for change in changes:
            block = {"type": change.type} | (change.model_extra or {})
            self.losses.append((change.from_iter, build_loss(block).to(device)))

    def at(self, iteration: int) -> nn.Module:
        """The loss of an iteration, counted from 1."""
        return next(loss for start, loss in reversed(self.losses) if start <= iteration)

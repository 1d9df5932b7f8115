"""A SRModel whose validation pictures are super-resolved by all processes of a run."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, default_collate

from bidiffsr_arch.training.measured_model import MeasuredSRModel


class SpreadSRModel(MeasuredSRModel):
    """Sampling, which takes nearly all of a validation's time, is spread over the processes.

    The first process gathers the results and goes on as BasicSR does in one process, so that metrics, pictures and the
    log are the very same.
    """

    def feed_data(self, data: dict[str, Any]) -> None:
        """As BasicSR's; ``result`` in the data is what another process has made of it already, for `test` to take."""
        super().feed_data(data)
        self.result: torch.Tensor | None = data.get("result")

    def between_pictures(self) -> None:
        """Called by every process at the same moments of a validation."""

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        """As BasicSR's."""
        if not self.opt["dist"]:
            self.between_pictures()
        return super().get_current_visuals()

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """As BasicSR's, which leaves all of it to the first process."""
        rounds = Rounds(self, dataloader)
        if self.opt["rank"] == 0:
            self.nondist_validation(rounds, current_iter, tb_logger, save_img)
        else:
            for _ in rounds:
                pass


class Rounds:
    """A validation loader that lets every process super-resolve one picture a round.

    In the first process it gives the data set's pictures in their order, each with its ``result``; in the others none.
    """

    def __init__(self, model: SpreadSRModel, dataloader: DataLoader) -> None:
        self.model, self.dataset = model, dataloader.dataset
        self.rank, self.processes = model.opt["rank"], model.opt["world_size"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), self.processes):
            self.model.between_pictures()
            results = self._gathered(first + self.rank)
            for index, result in zip(range(first, len(self)), results, strict=False):  # the last round may be short
                yield {**self._batch(index), "result": result}

    def _batch(self, index: int) -> dict[str, Any]:
        return default_collate([self.dataset[index]])

    def _gathered(self, index: int) -> list[torch.Tensor | None]:
        """This round's results in the first process, nothing in the others."""
        mine = None
        if index < len(self):
            self.model.feed_data(self._batch(index))
            self.model.test()
            mine = self.model.output.cpu()
        results = [None] * self.processes if self.rank == 0 else None
        distributed.gather_object(mine, results)
        return results or []

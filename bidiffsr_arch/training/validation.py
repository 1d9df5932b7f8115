"""A SRModel whose validation is spread over all processes, and knows the network whose cost metrics ask for."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, distributed
from torch.utils.data import DataLoader, default_collate

from bidiffsr_arch.metrics.cost import measured_network
from bidiffsr_arch.metrics.lpips import WeightsMissing, load_lpips
from bidiffsr_arch.training.leaving import leave_if_asked


class ValidatedSRModel(SRModel):
    """BasicSR's SRModel with what its validation lacks; subclasses say by `super_resolve` what is validated.

    - Sampling, which takes nearly all of the time, is spread over the processes. The first one gathers the results and
      goes on as BasicSR does in one process, so that metrics, images and log are the same.
    - ``calculate_params`` and ``calculate_ops`` are told the network, as BasicSR hands metrics only images.
    - An LPIPS metric without weights is logged as n/a, with the line that says what to do, and the others go on.
    """

    takes_pixels = True
    """Its images are in [0, 1] whatever a data set's ``mean`` and ``std`` are, see `compat.validation`."""
    gathered: Tensor | None = None
    """What another process has made of the present image."""

    def super_resolve(self) -> Tensor:
        """The result (B, 3, H, W) in [0, 1] for the images of `feed_data`."""
        raise NotImplementedError

    def test(self) -> None:
        """As BasicSR's: self.output (B, 3, H, W) in [0, 1]."""
        self.output = self.super_resolve() if self.gathered is None else self.gathered.to(self.device)

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """As BasicSR's."""
        self._drop_metrics_without_weights()
        network = self.get_bare_model(self.net_g) if hasattr(self, "net_g") else None
        with measured_network(network) if network is not None else nullcontext():
            super().nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """As BasicSR's, which leaves all of it to the first process."""
        batches = DistributedBatches(self, dataloader)
        if self.opt["rank"] == 0:
            self.nondist_validation(batches, current_iter, tb_logger, save_img)
        else:
            for _ in batches:
                pass

    def _drop_metrics_without_weights(self) -> None:
        metrics = self.opt["val"].get("metrics") or {}
        for name, options in list(metrics.items()):
            if options.get("type") != "calculate_lpips":
                continue
            try:
                load_lpips(options.get("net", "alex"), options.get("weights"))
            except WeightsMissing as missing:
                del metrics[name]
                get_root_logger().warning(f"# {name}: n/a ({missing})")
        if not metrics:
            self.opt["val"]["metrics"] = None


class DistributedBatches:
    """A validation loader with which every process super-resolves one image a round.

    In the first process it gives the data set's images in their order, and the model the result of each as `gathered`;
    in the others it gives nothing. Between rounds, training may be left.
    """

    def __init__(self, model: ValidatedSRModel, dataloader: DataLoader) -> None:
        self.model, self.dataset = model, dataloader.dataset
        self.rank, self.processes = model.opt["rank"], model.opt["world_size"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), self.processes):
            if self.model.is_train:
                leave_if_asked(self.model)
            results = self._results(first + self.rank)
            for index, result in zip(range(first, len(self)), results, strict=False):  # the last round may be short
                self.model.gathered = result
                yield self._batch(index)
            self.model.gathered = None

    def _batch(self, index: int) -> dict[str, Any]:
        return default_collate([self.dataset[index]])

    def _results(self, index: int) -> list[Tensor | None]:
        """This round's results in the first process, nothing in the others."""
        mine = None
        if index < len(self):
            self.model.feed_data(self._batch(index))
            self.model.test()
            mine = self.model.output.cpu()
        results = [None] * self.processes if self.rank == 0 else None
        distributed.gather_object(mine, results)
        return results or []

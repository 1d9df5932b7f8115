"""An SRModel whose validation runs in all processes, measures cost, and continues if a metric lacks its weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, cast

from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, distributed
from torch.utils.data import DataLoader, default_collate

from bidiffsr_arch.compat.options import after_parsing
from bidiffsr_arch.compat.patch import contains
from bidiffsr_arch.errors import WeightsMissing
from bidiffsr_arch.metrics.iqa import load_iqa, set_directions
from bidiffsr_arch.metrics.lpips import load_lpips
from bidiffsr_arch.metrics.measured import measured_network
from bidiffsr_arch.training.stopping import stop_if_requested

# What loads the network of a metric, from the metric's options.
LOADERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "calculate_iqa": lambda options: load_iqa(options["metric"], options.get("device")),
    "calculate_lpips": lambda options: load_lpips(options.get("net", "alex"), options.get("weights")),
}


def metric_directions() -> bool:
    """BasicSR's default is `better: higher`; metrics of pyiqa get pyiqa's own direction."""
    if contains(BaseModel._initialize_best_metric_results, "lower_better"):
        return False
    after_parsing(lambda opt, args: set_directions((opt.get("val") or {}).get("metrics") or {}))
    return True


class ValidatedSRModel(SRModel):
    """BasicSR's SRModel with a better validation; subclasses implement `super_resolve`.

    - Sampling, which takes most of the time, is distributed over the processes. The first process gathers the results
      and continues as BasicSR does in a single process, with the same metrics, images and log.
    - ``calculate_params`` and ``calculate_ops`` get the network, since BasicSR passes only images to metrics.
    - A metric without its weights is logged as n/a, with a line that says what to do; the other metrics continue.
    """

    takes_pixels = True
    """Results are in [0, 1] for any ``mean`` and ``std`` of a data set, see `compat.validation`."""
    gathered: Tensor | None = None
    """The result of the current image if another process computed it."""

    def super_resolve(self) -> Tensor:
        """The result (B, 3, H, W) in [0, 1] for the images of `feed_data`."""
        raise NotImplementedError

    def test(self) -> None:
        """As in BasicSR: set self.output, (B, 3, H, W) in [0, 1]."""
        self.output = self.super_resolve() if self.gathered is None else self.gathered.to(self.device)

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """As in BasicSR."""
        self._drop_metrics_without_weights()
        network = self.get_bare_model(self.net_g) if hasattr(self, "net_g") else None
        with measured_network(network) if network is not None else nullcontext():
            super().nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """As in BasicSR, but in all processes."""
        batches = DistributedBatches(self, dataloader)
        if self.opt["rank"] == 0:
            self.nondist_validation(cast(DataLoader, batches), current_iter, tb_logger, save_img)
        else:
            for _ in batches:
                pass

    def _drop_metrics_without_weights(self) -> None:
        metrics = self.opt["val"].get("metrics") or {}
        for name, options in list(metrics.items()):
            load = LOADERS.get(options["type"])
            try:
                if load is not None:
                    load(options)
            except WeightsMissing as missing:
                del metrics[name]
                get_root_logger().warning(f"# {name}: n/a ({missing})")
        if not metrics:
            self.opt["val"]["metrics"] = None


class DistributedBatches:
    """A validation loader with which every process super-resolves one image per round.

    In the first process it yields the data set's images in order and sets the model's `gathered` to each result; in the
    others it yields nothing. Between rounds it checks for signals.
    """

    def __init__(self, model: ValidatedSRModel, dataloader: DataLoader) -> None:
        self.model = model
        self.dataset: Any = dataloader.dataset
        self.rank, self.processes = model.opt["rank"], model.opt["world_size"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), self.processes):
            if self.model.is_train:
                stop_if_requested(self.model)
            results = self._results(first + self.rank)
            for index, result in zip(range(first, len(self)), results, strict=False):  # the last round may be short
                self.model.gathered = result
                yield self._batch(index)
            self.model.gathered = None

    def _batch(self, index: int) -> dict[str, Any]:
        return default_collate([self.dataset[index]])

    def _results(self, index: int) -> list[Tensor | None]:
        """The results of this round in the first process, an empty list in the others."""
        mine = None
        if index < len(self):
            self.model.feed_data(self._batch(index))
            self.model.test()
            mine = self.model.output.cpu()
        results: list[Tensor | None] | None = [None] * self.processes if self.rank == 0 else None
        distributed.gather_object(mine, results)
        return results or []

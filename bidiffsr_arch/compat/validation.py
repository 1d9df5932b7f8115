"""Patches of validation: its iteration, data sets without GT, and normalized images."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.metrics import iqa


def last_iteration() -> bool:
    """The validation at the end of training was logged one iteration late: it has the last one's number."""
    stock = BaseModel.validation
    if contains(stock, "total_iter"):
        return False

    def validation(
        self: BaseModel, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        if self.is_train and isinstance(current_iter, int):
            current_iter = min(current_iter, int(self.opt["train"]["total_iter"]))
        stock(self, dataloader, current_iter, tb_logger, save_img)

    replace_method(BaseModel, "validation", validation)
    return True


def images_without_gt() -> bool:
    """LQ alone was compared with GT of the last training batch, or failed: metrics that need GT are left out."""
    stock, feed = BaseModel.validation, SRModel.feed_data
    if contains(feed, "del self.gt"):
        return False

    def validation(
        self: BaseModel, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        with _possible_metrics(self, dataloader.dataset):
            stock(self, dataloader, current_iter, tb_logger, save_img)

    def feed_data(self: SRModel, data: dict[str, Any]) -> None:
        if "gt" not in data:
            vars(self).pop("gt", None)
        feed(self, data)

    replace_method(BaseModel, "validation", validation)
    replace_method(SRModel, "feed_data", feed_data)
    return True


@contextmanager
def _possible_metrics(model: BaseModel, dataset: Any) -> Iterator[None]:
    """Within the context, ``val: metrics`` has only those that can be computed for a data set."""
    vars(model).pop("metric_results", None)  # stock BasicSR keeps the names of the first data set's metrics
    metrics = (model.opt.get("val") or {}).get("metrics")
    if not metrics or isinstance(dataset, PairedImageDataset) or "gt" in dataset[0]:
        yield
        return
    left_out = [name for name, options in metrics.items() if needs_gt(options)]
    if left_out:
        get_root_logger().warning(f"{dataset.opt['name']} has no GT: {', '.join(left_out)} cannot be computed")
    possible = {name: options for name, options in metrics.items() if name not in left_out}
    model.opt["val"]["metrics"] = possible or None
    try:
        yield
    finally:
        model.opt["val"]["metrics"] = metrics


def needs_gt(options: Mapping[str, Any]) -> bool:
    """Whether a metric of ``val: metrics`` compares with GT."""
    if options["type"] == iqa.NAME:
        return iqa.needs_reference(options["metric"])
    gt = inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters.get("img2")
    return gt is not None and gt.default is gt.empty


def normalized_images() -> bool:
    """Metrics and saved images were of normalized values where a data set has mean and std: both are undone before."""
    stock, visuals, feed = BaseModel.validation, SRModel.get_current_visuals, SRModel.feed_data
    if contains(visuals, "std"):
        return False

    def validation(
        self: BaseModel, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        self.normalization = _normalization(dataloader.dataset.opt)
        try:
            stock(self, dataloader, current_iter, tb_logger, save_img)
        finally:
            del self.normalization

    def feed_data(self: SRModel, data: dict[str, Any]) -> None:
        if getattr(self, "takes_pixels", False):
            training = self.opt["datasets"]["train"] if self.is_train and "datasets" in self.opt else {}
            undo = getattr(self, "normalization", None) or _normalization(training)
            data = {key: undo(value) if key in ("lq", "gt") else value for key, value in data.items()}
        feed(self, data)

    def get_current_visuals(self: SRModel) -> dict[str, Tensor]:
        images = visuals(self)
        if getattr(self, "takes_pixels", False):
            return images
        return OrderedDict((name, self.normalization(image)) for name, image in images.items())

    replace_method(BaseModel, "validation", validation)
    replace_method(SRModel, "feed_data", feed_data)
    replace_method(SRModel, "get_current_visuals", get_current_visuals)
    return True


def _normalization(dataset: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The inverse of a data set's ``(image - mean) / std``."""
    if not dataset.get("mean") and not dataset.get("std"):
        return lambda image: image
    mean, std = (torch.tensor(dataset[key])[:, None, None] for key in ("mean", "std"))
    return lambda image: image * std.to(image) + mean.to(image)

"""Make LQ images from GT images in training, by the degradation and the pool of BasicSR's `RealESRGANModel`.

With ``degradation: realesrgan``, this module provides LQ and GT of every model that uses `SRModel.feed_data`. Random
numbers depend on the seed and on the sample index of a batch's first sample. The pool mixes pairs of earlier batches,
so it is part of the training state.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor

from bidiffsr_arch.compat.options import after_parsing
from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.compat.realesrgan import prepare_degradation
from bidiffsr_arch.config import degradation as options
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.sample_order import DEGRADATION, sample_indices, seeded

POOL = ("queue_lr", "queue_gt", "queue_ptr")
NEEDS = "kernel1"  # a key of RealESRGANDataset's batches that batches of pairs lack
ATTRIBUTE = "degradation"


class RealESRGANDegradation(RealESRGANModel):
    """`RealESRGANModel` without networks: its `feed_data` degrades, and its pool mixes training pairs.

    Args:
        opt: options of a training run, as BasicSR passes them to a model; missing ones of `config.degradation` have
            their defaults.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.block = options.Degradation.part_of(opt)
        self.manual_seed, self.batch = opt["manual_seed"], _batch(opt)
        further = {key: opt[key] for key in ("scale", "num_gpu", "is_train")}
        gt_size = opt["datasets"]["train"]["gt_size"]
        BaseModel.__init__(self, {**self.block.model_dump(), **further, "gt_size": gt_size})
        prepare_degradation(self)

    def degrade(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with LQ and GT, (B, 3, h, w) and (B, 3, H, W) in [0, 1], in place of GT and kernels.

        Args:
            batch: of `RealESRGANDataset`: GT (B, 3, 400, 400), blur kernels (B, 21, 21).
        """
        with self._drawn(batch):
            self.feed_data(batch)
        return {**batch, "lq": self.lq, "gt": self.gt_usm if self.block.l1_gt_usm else self.gt}

    @contextmanager
    def _drawn(self, batch: dict[str, Any]) -> Iterator[None]:
        """Seed all generators by the batch's sample index inside the context; torch's states are restored afterwards.

        Batches without sample indices, which BasicSR's trainer never loads, use the generators as they are.
        """
        indices = sample_indices(batch)
        if not indices:
            yield
            return
        seed = indices[0].seed(DEGRADATION, self.manual_seed)
        devices = [self.device] if self.device.type == "cuda" else []
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.enter_context(seeded(seed))
            torch.manual_seed(seed)
            yield

    def state(self) -> dict[str, Any]:
        """The pool, for a training state; empty before the first batch."""
        return {name: getattr(self, name) for name in POOL if hasattr(self, name)}

    def restore(self, state: dict[str, Any]) -> bool:
        """Restore a saved pool, and return whether it fits the options."""
        if not state:
            return True
        if not self._fits(state):
            return False
        self.queue_lr, self.queue_gt = (state[name].to(self.device) for name in POOL[:2])
        self.queue_ptr = state["queue_ptr"]
        return True

    def _fits(self, state: dict[str, Any]) -> bool:
        gt_size = self.opt["gt_size"]
        shapes = [(self.queue_size, 3, side, side) for side in (gt_size // self.opt["scale"], gt_size)]
        same = all(tuple(state[name].shape) == shape for name, shape in zip(POOL[:2], shapes, strict=True))
        return same and (self.queue_size - state["queue_ptr"]) % self.batch == 0


def degrading_models() -> bool:
    """Models take LQ images from data sets: with `degradation: realesrgan` they are made from GT images."""
    feed = SRModel.feed_data
    if contains(feed, NEEDS):
        return False

    def feed_data(self: SRModel, data: dict[str, Any]) -> None:
        degradation = degradation_of(self) if NEEDS in data else None
        feed(self, data if degradation is None else degradation.degrade(data))

    replace_method(SRModel, "feed_data", feed_data)
    after_parsing(_check_pool)
    return True


def degradation_of(model: BaseModel) -> RealESRGANDegradation | None:
    """The degradation of a model in training, created by the first call; None without that option."""
    if not model.opt.get("degradation") or not model.opt["is_train"]:
        return None
    if not hasattr(model, ATTRIBUTE):
        setattr(model, ATTRIBUTE, RealESRGANDegradation(model.opt))
    return getattr(model, ATTRIBUTE)


def pool_state(model: BaseModel) -> dict[str, Any] | None:
    """A model's pool, for the training state; None if it has none."""
    degradation = degradation_of(model)
    return None if degradation is None else {name: _on_cpu(value) for name, value in degradation.state().items()}


def restore_pool(model: BaseModel, states: list[dict[str, Any]]) -> None:
    """Restore the pool of a model's process. If options or the number of processes changed, it starts empty, with a
    warning.

    Args:
        states: `pool_state` of each process; none in a training state without a pool.
    """
    degradation = degradation_of(model)
    if degradation is None:
        return
    same = len(states) == model.opt["world_size"] and degradation.restore(states[model.opt["rank"]])
    if not same:
        get_root_logger().warning(
            "the pool of training pairs starts empty: the training state has none for these options and processes"
        )


def _on_cpu(value: Tensor | int) -> Tensor | int:
    return value.cpu() if isinstance(value, Tensor) else value


def _check_pool(opt: dict[str, Any], args: argparse.Namespace) -> None:
    """Compare the pool's size with the batch size, which depends on this machine's number of GPUs.

    Raises:
        InputError: the pool's size is not a multiple of the batch size.
    """
    if not opt["is_train"] or not opt.get("degradation"):
        return
    if wrong := list(options.unfit_pool(options.Degradation.part_of(opt).queue_size, _batch(opt))):
        raise InputError(wrong[0])


def _batch(opt: dict[str, Any]) -> int:
    """Samples in a batch of one process; without torch.distributed it is that of all GPUs."""
    return opt["datasets"]["train"]["batch_size_per_gpu"] * (1 if opt["dist"] else max(opt["num_gpu"], 1))

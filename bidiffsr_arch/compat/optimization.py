"""Patches of optimizers, learning-rate schedulers and warm-up."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.models.base_model import BaseModel
from torch import optim
from torch.optim.lr_scheduler import LRScheduler

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import InputError, nearest

# Supported by BasicSR's development version; its releases support Adam only.
OPTIMIZERS = ("AdamW", "Adamax", "SGD", "ASGD", "RMSprop", "Rprop")


ROLES = ("optim_g", "scheduler")  # keys of ``train``


def find_scheduler(name: str) -> type[LRScheduler]:
    """BasicSR's scheduler of that name, torch's, or the one that an imported plugin has defined.

    Raises:
        InputError: there is none.
    """
    own = {"MultiStepLR": lr_scheduler.MultiStepRestartLR}
    own |= {key: value for key, value in vars(lr_scheduler).items()
            if isinstance(value, type) and issubclass(value, LRScheduler) and not key.startswith("_")}  # fmt: skip
    known = {kind.__name__: kind for kind in _subclasses(LRScheduler) if not kind.__name__.startswith("_")} | own
    if name in known:
        return known[name]
    hint = nearest(str(name), known) or "; was the package that defines it imported?"
    raise InputError(f"no learning-rate scheduler named {name!r}{hint} Known: {', '.join(sorted(known))}")


def _subclasses(kind: type[LRScheduler]) -> list[type[LRScheduler]]:
    children: list[type[LRScheduler]] = kind.__subclasses__()
    return children + [one for child in children for one in _subclasses(child)]


def rehearse(train: Mapping[str, Any]) -> tuple[str, Exception] | None:
    """Build the optimizer and the scheduler of ``train`` for a single number, and step as in the first iterations.

    The schedulers of torch and BasicSR step as in the last iteration, too; others may have counters of their own.

    Returns:
        Which of the two failed, ``optim_g`` or ``scheduler``, and its error; None if both work.
    """
    blocks = {name: {key: value for key, value in train[name].items() if key != "type"} for name in ROLES}
    place, number = "optim_g", torch.nn.Parameter(torch.zeros(1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = getattr(optim, train[place]["type"])([number], **blocks[place])
            optimizer.step()
            place = "scheduler"
            scheduler = find_scheduler(train[place]["type"])(optimizer, **blocks[place])
            for last_epoch in (0, 1, int(train["total_iter"]) - 2):
                if last_epoch > 1 and type(scheduler).__module__.startswith(("torch", "basicsr")):
                    scheduler.last_epoch = last_epoch
                if last_epoch + 1 < train["total_iter"]:
                    scheduler.step()
    except Exception as error:  # classes of torch and of plugins may raise anything
        return place, error
    return None


def more_optimizers() -> bool:
    """Only Adam was supported: all optimizers of BasicSR's development version are."""
    stock = BaseModel.get_optimizer
    if contains(stock, "'AdamW'"):
        return False

    def get_optimizer(self: BaseModel, optim_type: str, params: Any, lr: float, **kwargs: Any) -> optim.Optimizer:
        if optim_type in OPTIMIZERS:
            return getattr(optim, optim_type)(params, lr=lr, **kwargs)
        return stock(self, optim_type, params, lr, **kwargs)

    replace_method(BaseModel, "get_optimizer", get_optimizer)
    return True


def more_schedulers() -> bool:
    """Only two schedulers were supported, and none of plugins: all imported ones are."""
    stock = BaseModel.setup_schedulers
    if not contains(stock, "['MultiStepLR', 'MultiStepRestartLR']"):
        return False

    def setup_schedulers(self: BaseModel) -> None:
        block = self.opt["train"]["scheduler"]
        scheduler = find_scheduler(block.pop("type"))
        self.schedulers += [scheduler(optimizer, **block) for optimizer in self.optimizers]

    replace_method(BaseModel, "setup_schedulers", setup_schedulers)
    return True


def reached_rate() -> bool:
    """After a warm-up MultiStepLR stayed one step below lr forever: the step that ends the warm-up sets lr itself."""
    stock = BaseModel.update_learning_rate
    if not contains(stock, "current_iter < warmup_iter"):
        return False

    def update_learning_rate(self: BaseModel, current_iter: int, warmup_iter: int = -1) -> None:
        stock(self, current_iter, warmup_iter)
        if current_iter == warmup_iter:
            for scheduler in self.schedulers:
                if isinstance(scheduler, lr_scheduler.MultiStepRestartLR):  # others compute it from lr
                    for group in scheduler.optimizer.param_groups:
                        group["lr"] = group["initial_lr"]

    replace_method(BaseModel, "update_learning_rate", update_learning_rate)
    return True

"""Patches of optimizers, learning-rate schedulers and warm-up."""

import difflib
from typing import Any

from basicsr.models import lr_scheduler
from basicsr.models.base_model import BaseModel
from torch import optim
from torch.optim.lr_scheduler import LRScheduler

from bidiffsr_arch.compat.patch import contains, replace_method
from bidiffsr_arch.errors import InputError

# Supported by BasicSR's development version; its releases support Adam only.
OPTIMIZERS = ("AdamW", "Adamax", "SGD", "ASGD", "RMSprop", "Rprop")


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
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "was the package that defines it imported?"
    raise InputError(f"no learning-rate scheduler named {name!r}; {hint} Known: {', '.join(sorted(known))}")


def _subclasses(kind: type[LRScheduler]) -> list[type[LRScheduler]]:
    children: list[type[LRScheduler]] = kind.__subclasses__()
    return children + [one for child in children for one in _subclasses(child)]


def more_optimizers() -> bool:
    """Only Adam could be chosen: every optimizer that BasicSR's development version knows can."""
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
    """Only two schedulers could be chosen, and plugins' not at all: any that is imported can."""
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
    """After a warm-up MultiStepLR stayed one step below lr for ever: the step that ends the warm-up sets lr itself."""
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

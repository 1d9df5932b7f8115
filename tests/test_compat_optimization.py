"""Optimizers, schedulers and warm-up of BasicSR's models."""

import re
from typing import Any, get_args

import pytest
import torch
from basicsr.models import lr_scheduler
from basicsr.models.base_model import BaseModel
from small_run import basicsr, log_of
from torch import optim
from torch.optim.lr_scheduler import LRScheduler

from bidiffsr_arch.compat.optimization import find_scheduler, rehearse
from bidiffsr_arch.config.training import Optimizer
from bidiffsr_arch.errors import InputError

OPTIMIZERS = get_args(Optimizer.model_fields["type"].annotation)


class CosineAnnealingRestartCyclicLR(LRScheduler):
    """A plugin's scheduler: the reference has one of this name."""

    def __init__(self, optimizer, periods, restart_weights=(1,), eta_mins=(0,), last_epoch=-1):
        self.periods, self.eta_mins = periods, eta_mins
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        rates = [group["initial_lr"] / (1 + self.last_epoch) for group in self.optimizer.param_groups]
        return [max(rate, self.eta_mins[0]) for rate in rates]


@pytest.fixture
def options(run_options: dict[str, Any]) -> dict[str, Any]:
    run_options["model_type"] = "SRModel"
    run_options["network_g"] = dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2)
    run_options["train"]["total_iter"] = 3
    run_options["val"] = None
    del run_options["datasets"]["val"], run_options["beta_schedule"]
    return run_options | {"num_gpu": 0}


class Model(BaseModel):
    def __init__(self, **train: Any) -> None:
        super().__init__(dict(num_gpu=0, is_train=True, train=train))
        self.optimizers = [optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)]
        self.setup_schedulers()

    def rates(self, count: int, warmup_iter: int = -1) -> list[float]:
        rates = []
        for iteration in range(1, count + 1):
            self.update_learning_rate(iteration, warmup_iter)
            self.optimizers[0].step()
            rates.append(self.get_current_learning_rate()[0])
        return rates


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_chosen(name):
    parameters = [torch.nn.Parameter(torch.ones(1))]
    optimizer = BaseModel.get_optimizer(None, name, parameters, 0.1)
    assert type(optimizer) is getattr(optim, name) and optimizer.param_groups[0]["lr"] == 0.1


def test_another_optimizer_is_still_refused():
    with pytest.raises(NotImplementedError, match="Adan"):
        BaseModel.get_optimizer(None, "Adan", [], 0.1)


@pytest.mark.parametrize("optimizer", [dict(type="AdamW", weight_decay=0.1), dict(type="SGD", momentum=0.9)])
def test_a_training_by_another_optimizer_and_a_plugins_scheduler(workplace, options, optimizer):
    options["train"] |= dict(
        optim_g=optimizer | {"lr": 1e-3},
        scheduler=dict(type="CosineAnnealingRestartCyclicLR", periods=[2], restart_weights=[1], eta_mins=[1e-4]),
    )
    assert basicsr("train", options) == 0
    assert re.findall(r"lr:\((\S+?),", log_of("experiments/tiny")) == ["1.000e-03", "5.000e-04", "3.333e-04"]


def test_schedulers_are_found_by_name():
    assert find_scheduler("MultiStepLR") is find_scheduler("MultiStepRestartLR") is lr_scheduler.MultiStepRestartLR
    assert find_scheduler("CosineAnnealingRestartLR") is lr_scheduler.CosineAnnealingRestartLR
    assert find_scheduler("ExponentialLR") is optim.lr_scheduler.ExponentialLR
    assert find_scheduler("CosineAnnealingRestartCyclicLR") is CosineAnnealingRestartCyclicLR
    with pytest.raises(InputError, match="did you mean 'MultiStepLR'"):
        find_scheduler("MultiStep")


def test_the_warm_up_reaches_the_rate():
    """BasicSR's MultiStepLR multiplies the current rate, which therefore stayed at 3/4 of lr."""
    model = Model(scheduler=dict(type="MultiStepLR", milestones=[5], gamma=0.5))
    assert model.rates(7, warmup_iter=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.5]


def test_without_a_warm_up_nothing_has_changed():
    assert Model(scheduler=dict(type="MultiStepLR", milestones=[2], gamma=0.5)).rates(4) == [1.0, 1.0, 0.5, 0.5]
    cosine = Model(scheduler=dict(type="CosineAnnealingRestartLR", periods=[4]))
    assert cosine.rates(3, warmup_iter=2) == pytest.approx([0.5, 0.853553, 0.5], abs=1e-6)


TRAIN = dict(optim_g=dict(type="SGD", lr=0.1), scheduler=dict(type="ExponentialLR", gamma=0.9), total_iter=1000)
IMPOSSIBLE = {
    "more iterations than OneCycleLR has": ("scheduler", dict(type="OneCycleLR", max_lr=1, total_steps=998), "998"),
    "a scheduler that needs a metric": ("scheduler", dict(type="ReduceLROnPlateau"), "metrics"),
    "a function as text": ("scheduler", dict(type="LambdaLR", lr_lambda="x"), ""),
    "another function as text": ("scheduler", dict(type="MultiplicativeLR", lr_lambda="x"), ""),
    "schedulers as text": ("scheduler", dict(type="ChainedScheduler", schedulers=["StepLR"]), ""),
    "a step of 0": ("scheduler", dict(type="StepLR", step_size=0), "zero"),
    "periods of 0": ("scheduler", dict(type="CosineAnnealingRestartLR", periods=[0, 2000], restart_weights=[1, 1]), ""),
    "a rate that Adam cannot have": ("optim_g", dict(type="Adam", lr=-1), "learning rate"),
    "Nesterov without momentum": ("optim_g", dict(type="SGD", lr=0.1, nesterov=True), "momentum"),
    "a negative momentum": ("optim_g", dict(type="RMSprop", lr=0.1, momentum=-2.0), "momentum"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_an_optimizer_or_scheduler_does_not_take_is_found_before_training(workplace, options, capsys, case):
    place, block, said = IMPOSSIBLE[case]
    assert rehearse(TRAIN) is None
    found, error = rehearse(TRAIN | {place: block})
    assert found == place and said in str(error).lower()
    options["train"] |= TRAIN | {place: block}
    assert basicsr("train", options, "--dry-run") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("basicsr: ") and f"train: {place}" in line


ALL = {
    "ConstantLR": {}, "CosineAnnealingLR": dict(T_max=3), "CosineAnnealingRestartLR": dict(periods=[9]), "StepLR": dict(
    step_size=1), "CosineAnnealingWarmRestarts": dict(T_0=2), "CyclicLR": dict(base_lr=0.1, max_lr=0.2),
    "ExponentialLR": dict(gamma=0.9), "LinearLR": {}, "MultiStepLR": dict(milestones=[2], gamma=0.5),
    "OneCycleLR": dict(max_lr=0.2, total_steps=9), "PolynomialLR": dict(total_iters=3),
}  # fmt: skip


@pytest.mark.parametrize("total_iter", [1, 2, 3, 10])
@pytest.mark.parametrize("name", ALL)
def test_schedulers_that_work_pass_the_rehearsal(name, total_iter):
    scheduler = dict(type=name, **ALL[name])
    optimizer = dict(type="SGD", lr=0.1, momentum=0.9)
    assert rehearse(dict(optim_g=optimizer, scheduler=scheduler, total_iter=total_iter)) is None
    model = Model(scheduler=dict(scheduler))
    assert len(model.rates(min(total_iter, 9))) == min(total_iter, 9)

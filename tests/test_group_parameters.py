"""Parameters of timestep groups that a step does not use stay as they are, as the reference's separate ones do."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from bidiffsr_arch.binary import timestep_group
from bidiffsr_arch.binary.bank import TimestepBank
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.training import BIDiffSRModel, early_updates
from bidiffsr_arch.training.group_parameters import GroupParameters

ITERATIONS = 5


@pytest.fixture
def double():
    """Everything in float64, so that rounding is negligible."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def batch_options(options: dict[str, Any]) -> dict[str, Any]:
    options["network_g"]["dropout"] = 0.0
    return options | {"timestep_sampling": "batch", "num_gpu": 0}


def build(options: dict[str, Any]) -> BIDiffSRModel:
    torch.manual_seed(0)
    return BIDiffSRModel(deepcopy(options))


def pairs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"lq": torch.rand(2, 3, 8, 8, generator=generator), "gt": torch.rand(2, 3, 16, 16, generator=generator)}


def groups_of(model: BIDiffSRModel) -> list[int]:
    network = model.get_bare_model(model.net_g)
    times = [model._draw(torch.zeros(2, 3, 16, 16), iteration)[0] for iteration in range(1, ITERATIONS + 1)]
    return [int(timestep_group(time, network.total_step, network.dynamic_group)[0]) for time in times]


def banks_of(network: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{inner}": bank
        for name, module in network.named_modules()
        if isinstance(module, TimestepBank)
        for inner, bank in module.named_parameters(recurse=False)
    }


def train(model: BIDiffSRModel) -> list[float]:
    losses = []
    for iteration in range(1, ITERATIONS + 1):
        model.feed_data(pairs())
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_pix"])
    return losses


class Step(nn.Module):
    """Forward and backward pass in one, since the backward pass recomputes with the network's parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> float:
        loss = (self.network(*inputs) - target).abs().mean()
        loss.backward()
        return loss.item()


def reference_losses(model: BIDiffSRModel) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses, and banks afterwards, where each group's parameters are separate ones, as in the reference's network."""
    step = Step(deepcopy(model.net_g))
    banks = banks_of(step)
    rows = {name: [row.detach().clone().requires_grad_() for row in bank] for name, bank in banks.items()}
    others = {name: p.detach().clone().requires_grad_() for name, p in step.named_parameters() if name not in banks}
    everything = [*others.values(), *(row for bank in rows.values() for row in bank)]
    optimizer = torch.optim.Adam(everything, lr=1e-3)
    data, losses = pairs(), []
    condition, gt = upsample(data["lq"], 2), data["gt"]
    for iteration, group in enumerate(groups_of(model), 1):
        time, noise = model._draw(gt, iteration)
        stacked = {name: torch.stack([row if k == group else row.detach() for k, row in enumerate(bank)])
                   for name, bank in rows.items()}  # fmt: skip
        x_t = model.diffusion.add_noise(gt, noise, time)
        optimizer.zero_grad()
        losses.append(functional_call(step, others | stacked, ((x_t, condition, time), noise)))
        optimizer.step()
    return losses, {name.removeprefix("network."): torch.stack(bank).detach() for name, bank in rows.items()}


@pytest.mark.parametrize("least", [1, early_updates.AT_LEAST], ids=["many early updates", "none"])
def test_batch_sampling_has_the_reference_s_first_losses(double, batch_options, monkeypatch, least):
    monkeypatch.setattr(early_updates, "AT_LEAST", least)
    model = build(batch_options)
    assert len(set(groups_of(model))) > 1 and len(set(groups_of(model))) < ITERATIONS, "groups alternate"
    expected, banks = reference_losses(model)
    assert train(model) == pytest.approx(expected, abs=1e-9, rel=0)
    for name, bank in banks_of(model.net_g).items():
        torch.testing.assert_close(bank.detach(), banks[name], atol=1e-9, rtol=0)


@pytest.mark.parametrize("changes", [{"grad_clip": 0.1}, {"accumulate": 2}, {"amp": "fp16"}])
def test_unused_groups_are_never_changed(batch_options, changes):
    batch_options["train"] |= changes
    model = build(batch_options)
    before = {name: bank.detach().clone() for name, bank in banks_of(model.net_g).items()}
    first, *later = groups_of(model)
    train(model)
    unused = set(range(3)) - {first, *later}
    banks = banks_of(model.net_g)
    moved = {k for k in range(3) if any((bank[k] != before[name][k]).any() for name, bank in banks.items())}
    assert moved == {0, 1, 2} - unused


def test_rows_follow_a_network_that_is_converted(batch_options):
    """`module.double()` gives parameters other memory; updates reach them there."""
    model = build(batch_options)
    model.net_g.double()
    before = {name: bank.detach().clone() for name, bank in banks_of(model.net_g).items()}
    model.group_parameters.used = {1}
    bank = next(iter(model.group_parameters.rows))
    bank.grad = torch.ones_like(bank)
    model.group_parameters.split_gradients()
    model.optimizer_g.step()
    name = next(name for name, value in banks_of(model.net_g).items() if value is bank)
    assert torch.equal(bank[0], before[name][0]) and not torch.equal(bank[1], before[name][1])


def test_states_with_whole_banks_are_split(batch_options, tmp_path):
    """States of earlier versions."""
    model = build(batch_options)
    whole = torch.optim.Adam(model.net_g.parameters(), lr=1e-3)
    for parameter in model.net_g.parameters():
        parameter.grad = torch.rand_like(parameter)
    whole.step()
    state = {"epoch": 0, "iter": 1, "optimizers": [whole.state_dict()],
             "schedulers": [scheduler.state_dict() for scheduler in model.schedulers]}  # fmt: skip
    model.resume_training(state)
    for bank, rows in model.group_parameters.rows.items():
        moments = [model.optimizer_g.state[row]["exp_avg"] for row in rows]
        assert torch.equal(torch.stack(moments), whole.state[bank]["exp_avg"])
        assert {int(model.optimizer_g.state[row]["step"]) for row in rows} == {1}
    train(model)


def test_a_network_without_banks_has_no_rows(options):
    options["network_g"].update(dynamic_group=1)
    groups = GroupParameters(build(options).net_g)
    parameters = list(groups.network.parameters())
    assert not groups.rows and [id(p) for p in groups.split(parameters)] == [id(p) for p in parameters]

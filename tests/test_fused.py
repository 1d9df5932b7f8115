"""The fused optimizer computes what the default one does but for rounding, and gives way to the user's choice."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.training import BIDiffSRModel
from bidiffsr_arch.training.fused import FUSED, fused_argument


def steps(kind: str, number: int, count: int = 3, **options: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(number, generator=generator))
    optimizer = getattr(torch.optim, kind)([parameter], **options)
    for _ in range(count):
        parameter.grad = torch.randn(number, generator=generator) * 10.0 ** torch.randint(
            -8, 3, (number,), generator=generator
        )
        optimizer.step()
    return [parameter.detach(), *optimizer.state[parameter].values()]


@settings(deadline=None)
@given(
    st.sampled_from(FUSED),
    st.integers(1, 70),  # also numbers that are no multiple of a vector
    st.sampled_from([1e-4, 3e-2]),
    st.sampled_from([(0.9, 0.99), (0.9, 0.999), (0.0, 0.5)]),
    st.sampled_from([0.0, 0.01]),
    st.booleans(),
)
def test_results_differ_by_rounding_only(kind, number, lr, betas, weight_decay, amsgrad):
    options = dict(lr=lr, betas=betas, weight_decay=weight_decay, amsgrad=amsgrad)
    for one, other in zip(steps(kind, number, **options), steps(kind, number, fused=True, **options), strict=True):
        # A few roundings in each of three steps; where averages cancel, relative to the largest.
        torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-7 * other.abs().max().item())


@pytest.mark.parametrize(
    ("kind", "dtype", "options", "expected"),
    [
        ("Adam", torch.float32, {"lr"}, {"fused": True}),
        ("AdamW", torch.float32, {"lr", "weight_decay"}, {"fused": True}),
        ("Adam", torch.float32, {"foreach"}, {}),
        ("Adam", torch.float32, {"fused"}, {}),
        ("Adam", torch.float32, {"differentiable"}, {}),
        ("Adam", torch.float64, set(), {}),
        ("SGD", torch.float32, set(), {}),
    ],
)
def test_the_implementation_is_chosen_where_it_is_left_open(kind, dtype, options, expected):
    assert fused_argument(kind, [torch.zeros(1), torch.zeros(1, dtype=dtype)], options) == expected


def test_parameters_on_other_devices_keep_the_default():
    assert fused_argument("Adam", [torch.zeros(1), torch.zeros(1, device="meta")], ()) == {}


def model_with(options: dict[str, Any], **optim_g: Any) -> BIDiffSRModel:
    options = deepcopy(options)
    options["train"]["optim_g"] |= optim_g
    torch.manual_seed(options["manual_seed"])
    return BIDiffSRModel(options)


def train(model: BIDiffSRModel, first: int, last: int) -> list[torch.Tensor]:
    for iteration in range(first, last + 1):
        generator = torch.Generator().manual_seed(iteration)
        lq, gt = (torch.rand(2, 3, size, size, generator=generator) for size in (8, 16))
        model.feed_data(dict(lq=lq, gt=gt))
        model.optimize_parameters(iteration)
    return [parameter.detach() for parameter in model.net_g.parameters()]


def test_training_uses_it_and_learns_the_same(options):
    ours, plain = model_with(options), model_with(options, fused=False)
    assert ours.optimizer_g.defaults["fused"] is True and plain.optimizer_g.defaults["fused"] is False
    for one, other in zip(train(ours, 1, 2), train(plain, 1, 2), strict=True):
        torch.testing.assert_close(one, other)


def test_a_state_of_the_default_implementation_is_resumed_with_it(options):
    """A run that was begun with an earlier version goes on exactly as it would have with that version."""
    whole, first, rest = (model_with(options, **kind) for kind in ({"fused": False}, {"fused": False}, {}))
    train(first, 1, 2)
    rest.net_g.load_state_dict(first.net_g.state_dict())
    schedulers = [scheduler.state_dict() for scheduler in first.schedulers]
    rest.resume_training({"iter": 2, "optimizers": [first.optimizer_g.state_dict()], "schedulers": schedulers})
    expected = train(whole, 1, 4)
    assert all(torch.equal(one, other) for one, other in zip(train(rest, 3, 4), expected, strict=True))

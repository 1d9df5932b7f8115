"""Options that have changed between a training state and the run that resumes it."""

import pytest

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.option_changes import (
    changed_options,
    check_changes,
    concerns_learning_rate,
    describe_changes,
    training_options,
)


def options(**changes: object) -> dict[str, object]:
    return {
        "name": "run", "scale": 2, "manual_seed": 3, "rank": 0, "world_size": 1, "session": object(),
        "datasets": {"train": {"gt_size": 16, "num_worker_per_gpu": 2}, "val": {"name": "Set5"}},
        "network_g": {"type": "SR3UNet", "channel_mults": (1, 2)},
        "train": {"optim_g": {"type": "Adam", "lr": 1e-4}, "ema_decay": None, "total_iter": 9},
        "val": {"val_freq": 5}, "path": {}, "logger": {},
    } | changes  # fmt: skip


def test_options_are_flat_plain_and_those_that_matter():
    assert training_options(options(), seed_is_drawn=False) == {
        "scale": 2, "manual_seed": 3, "world_size": 1, "datasets: train: gt_size": 16, "network_g: type": "SR3UNet",
        "network_g: channel_mults": [1, 2], "train: optim_g: type": "Adam", "train: optim_g: lr": 1e-4,
        "train: total_iter": 9,
    }  # fmt: skip
    assert "manual_seed" not in training_options(options(), seed_is_drawn=True)


def test_a_network_s_defaults_count_as_given():
    then = training_options(options(), False)
    now = training_options(options(network_g={"type": "SR3UNet", "channel_mults": [1, 2], "out_channel": 3}), False)
    assert changed_options(then, now) == {}
    assert changed_options(now, then | {"network_g: out_channel": 1}) == {"network_g: out_channel": (3, 1)}


def test_changes_are_described_and_strictly_refused():
    then = training_options(options(), False)
    changes = changed_options(then, {key: value for key, value in then.items() if key != "train: optim_g: lr"})
    assert changes == {"train: optim_g: lr": (1e-4, None)}
    assert describe_changes(changes) == ["resumed with another train: optim_g: lr: 0.0001 -> left out"]
    check_changes(changes, "1.state", (), strict=False)
    with pytest.raises(InputError, match=r"train: optim_g: lr: 0\.0001, as 1\.state was trained with, got left out"):
        check_changes(changes, "1.state", (), strict=True)


def test_networks_that_are_not_resumed_may_change():
    changes = {"network_d: type": ("A", "B")}
    check_changes(changes, "1.state", ("network_d",), strict=False)
    with pytest.raises(InputError, match="network_d: type: A"):
        check_changes(changes, "1.state", (), strict=False)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("train: optim_d: betas", True),
        ("train: scheduler: milestones", True),
        ("train: warmup_iter", True),
        ("train: ema_decay", False),
        ("scale", False),
    ],
)
def test_options_that_concern_the_learning_rate(key, expected):
    assert concerns_learning_rate(key) == expected

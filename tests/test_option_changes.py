"""Options that have changed between a training state and the run that resumes it."""

from typing import Any

import pytest

from bidiffsr_arch.config.diffusion import BetaSchedule, DiffusionOptions
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.option_changes import (
    NOISE,
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


# Another value of each option that defines what trained weights compute.
OTHER_MEANING = {
    "scale": 4, "diffuse": "residual", "residual_scale": 3, "data_range": [-1, 1], "time_input": "noise_level",
    "beta_schedule: schedule": "cosine", "beta_schedule: n_timestep": 50, "beta_schedule: linear_start": 1e-3,
    "beta_schedule: linear_end": 0.5, "beta_schedule: prediction_type": "sample",
    "beta_schedule: trained_betas": [0.1, 0.2], "beta_schedule: rescale_betas_zero_snr": True,
    "datasets: train: mean": [0.5] * 3, "datasets: train: std": [0.5] * 3, "datasets: train: color": "y",
    "network_g: channel_mults": [1, 4],
}  # fmt: skip
OTHER_SAMPLER = {
    "scheduler_type": "DDPM", "num_inference_steps": 4, "eta": 0.5, "timestep_spacing": "trailing",
    "clip_sample": False, "clip_sample_range": 2.0, "guidance_scale": 1.0, "steps_offset": 1,
}  # fmt: skip


def resumed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Changes between two runs, if they can be resumed."""
    changes = changed_options(then, now)
    check_changes(changes, "1.state", (), strict=False)
    return changes


@pytest.mark.parametrize("key", OTHER_MEANING)
def test_what_trained_weights_compute_cannot_change(key):
    then = training_options(options(), False)
    for pair in ((then, then | {key: OTHER_MEANING[key]}), (then | {key: OTHER_MEANING[key]}, then)):
        with pytest.raises(InputError, match=f"^expected {key}: .*, as 1.state was trained with, got ") as caught:
            resumed(*pair)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", OTHER_SAMPLER)
def test_the_sampler_may_change(key):
    then = training_options(options(), False)
    changes = resumed(then, then | {f"beta_schedule: {key}": OTHER_SAMPLER[key]})
    assert list(changes) == [f"beta_schedule: {key}"]


def test_every_option_of_the_diffusion_is_one_of_the_network_s_or_the_sampler_s():
    named = {key.removeprefix("beta_schedule: ") for key in OTHER_MEANING}
    assert {*DiffusionOptions.model_fields, *NOISE} - {"beta_schedule"} <= named
    assert set(BetaSchedule.model_fields) - {"is_guidance"} <= named | set(OTHER_SAMPLER)


def test_defaults_and_further_names_of_the_diffusion_count_as_given():
    then = training_options(options(), False)
    given = {"data_range": [0, 1], "diffuse": "image", "beta_schedule: num_train_timesteps": 2000,
             "beta_schedule: beta_end": 0.01, "beta_schedule: scheduler_type": "DDIMScheduler"}  # fmt: skip
    assert resumed(then, then | given) == resumed(then | given, then) == {}


def test_a_plugin_s_own_values_of_such_options_are_compared_as_they_are():
    then = training_options(options(), False) | {"diffuse": "latent"}
    assert resumed(then, then) == {}
    assert resumed(then, then | {"train: optim_g: lr": 1e-5}) == {"train: optim_g: lr": (1e-4, 1e-5)}


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

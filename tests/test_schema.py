"""The JSON Schema of option files, as an editor's validator sees it: shipped files are valid, mistakes are found."""

from functools import reduce
from operator import getitem
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bidiffsr_arch.config.shipped import shipped, shipped_path
from bidiffsr_arch.config.tables import editor_schema
from bidiffsr_arch.config.yaml import merged_options, read_yaml


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = editor_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def wrong_places(validator: Draft202012Validator, options: dict[str, Any]) -> set[str]:
    """Where the validator finds something wrong, as ``train: total_iter``."""
    return {": ".join(map(str, error.absolute_path)) for error in validator.iter_errors(options)}


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_are_valid_alone_and_over_their_base(validator, name):
    assert wrong_places(validator, read_yaml(shipped_path(name))) == set()
    assert wrong_places(validator, merged_options(shipped_path(name))) == set()


def test_an_open_block_may_be_null(validator):
    """`beta_schedule: ~` removes what the base file says."""
    assert wrong_places(validator, dict(model_type="BicubicModel", beta_schedule=None, train=None, val=None)) == set()


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("scale", "x4", "scale"),
        ("scale", 0, "scale"),
        ("residual_scle", 2, ""),
        ("diffuse", "images", "diffuse"),
        ("data_range", [0], "data_range"),
        ("num_gpu", "many", "num_gpu"),
        ("network_g: type", 3, "network_g"),
        ("beta_schedule: n_timestep", 0, "beta_schedule"),
        ("beta_schedule: linear_end", -1e-2, "beta_schedule"),
        ("beta_schedule: scheduler_type", "DDIMM", "beta_schedule"),
        ("datasets: train: gt_sise", 128, "datasets: train"),
        ("datasets: train: use_rot", "yes", "datasets: train: use_rot"),
        ("datasets: train: io_backend: type", "tape", "datasets: train: io_backend: type"),
        ("train: total_iter", 0, "train"),
        ("train: total_itre", 5, "train"),
        ("train: optim_g: lr", "fast", "train"),
        ("train: optim_g: type", "Adamant", "train"),
        ("train: ema_decay", 1, "train"),
        ("val: save_img", 1, "val"),
        ("val: metrics: psnr: better", "more", "val"),
        ("logger: print_freq", 0, "logger"),
        ("path: strict_load_g", "no", "path: strict_load_g"),
        ("expected", {"Set5": {"psnr": {"value": "30", "tolerance": 0.1}}}, "expected"),
    ],
)
def test_a_mistake_is_found_in_its_block(validator, path, value, place):
    options = merged_options(shipped_path("train_BIDiffSR_x4"))
    *blocks, key = path.split(": ")
    reduce(getitem, blocks, options)[key] = value
    assert wrong_places(validator, options) == {place}


def test_other_models_have_keys_of_their_own(validator):
    options = merged_options(shipped_path("train_BBCUNet_x4"))
    assert wrong_places(validator, options | {"tile": {"size": 64}}) == set()
    assert wrong_places(validator, options | {"model_type": "BIDiffSRModel", "tile": {"size": 64}}) == {""}

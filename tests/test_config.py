"""Structs of options: their errors, tables and JSON Schema."""

import argparse
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from bidiffsr_arch.cli import main
from bidiffsr_arch.config import yaml
from bidiffsr_arch.config.data import PairedDataset
from bidiffsr_arch.config.diffusion import BetaSchedule, Description, DiffusionOptions
from bidiffsr_arch.config.file import AnyFile, DiffusionFile, OptionFile, load_options
from bidiffsr_arch.config.kinds import Count, Items, Pair
from bidiffsr_arch.config.shipped import shipped, shipped_path
from bidiffsr_arch.config.signature import wrong_arguments
from bidiffsr_arch.config.struct import Struct
from bidiffsr_arch.config.tables import BLOCKS, editor_schema, table, with_tables
from bidiffsr_arch.config.training import Scheduler, Step, Train
from bidiffsr_arch.config.words import words
from bidiffsr_arch.errors import InputError

ROOT = Path(__file__).parents[1]
TABLED = ["docs/training.md", "docs/options.md", "docs/real.md"]
TRAIN = dict(optim_g=dict(type="Adam", lr=1e-4), scheduler=dict(type="MultiStepLR", milestones=[9]), total_iter=10)


def error_of(struct: type[Struct], data: dict[str, Any], place: str = "") -> str:
    with pytest.raises(InputError) as caught:
        struct.read(data, "a.yml", place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_mistakes_are_reported_in_one_line():
    said = error_of(Train, TRAIN | dict(total_iter=0, ema_decay=2, amp="fp8", gradclip=1), "train")
    assert said.startswith("a.yml: unknown key 'gradclip' in train:; did you mean 'grad_clip'? Known: accumulate, ")
    for sentence in (
        "; expected train: total_iter to be an integer of at least 1, got 0",
        "; expected train: ema_decay to be a number from 0 to below 1, got 2",
        "; expected train: amp to be one of bf16, fp16, or ~, got 'fp8'",
    ):
        assert sentence in said


def test_a_misspelt_key_is_not_also_missing():
    data = {("total_itre" if key == "total_iter" else key): value for key, value in TRAIN.items()}
    said = error_of(Train, data, "train")
    assert "did you mean 'total_iter'?" in said and "found none" not in said
    del data["total_itre"]
    assert "expected the key `total_iter:` in `train:`, found none" in error_of(Train, data, "train")


def test_all_violated_relations_are_reported():
    said = error_of(DiffusionOptions, dict(residual_scale=0, data_range=[2, 2]))
    assert "residual_scale other than 0" in said and "two different values in data_range" in said


def test_the_message_for_a_list_item_shows_the_list():
    data = dict(type="Adam", lr=1, betas=[0.9, 1.5])
    assert "train: optim_g: betas to be two numbers from 0 to below 1, got 1.5 there" in error_of(
        Train, TRAIN | {"optim_g": data}, "train"
    )


@pytest.mark.parametrize(("value", "read"), [(5e5, 500000), (3, 3), (2.0, 2)])
def test_a_float_without_fraction_is_a_whole_number(value, read):
    assert type(Train.read(TRAIN | dict(total_iter=value)).total_iter) is int
    assert Train.read(TRAIN | dict(total_iter=value)).total_iter == read


@pytest.mark.parametrize("value", [2.5, "3", True, None, float("nan"), float("inf"), [3]])
def test_other_values_than_whole_numbers_are_refused(value):
    assert "total_iter" in error_of(Train, TRAIN | dict(total_iter=value))


def test_a_part_of_a_block_is_read_alone():
    assert Step.part_of(TRAIN | dict(amp="bf16", another_models_key=3)) == Step(amp="bf16")
    assert DiffusionOptions.part_of(dict(scale=2, beta_schedule=None)).beta_schedule == BetaSchedule()


def test_structs_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Step().amp = "bf16"


def test_other_sampling_options_are_checked():
    trained = DiffusionOptions.read(dict(beta_schedule=dict(n_timestep=7, rescale_betas_zero_snr=True)))
    changed = trained.sampled_by(scheduler_type="PNDMScheduler").beta_schedule
    assert (changed.scheduler_type, changed.n_timestep) == ("PNDM", 7)
    assert changed.arguments()["rescale_betas_zero_snr"] is True
    with pytest.raises(InputError, match="scheduler_type to be one of"):
        trained.sampled_by(scheduler_type="PNDN")


def test_a_description_contains_only_given_options():
    description = Description({"type": "BBCUNet"}, scale=4)
    assert description.model_dump(exclude_unset=True) == {"network_g": {"type": "BBCUNet"}, "scale": 4}


@pytest.mark.parametrize("block", BLOCKS)
def test_every_option_has_a_description_and_a_valid_default(block):
    struct = BLOCKS[block]
    for name, field in struct.model_fields.items():
        nested = struct.model_json_schema()["properties"]
        assert field.description or "$ref" in str(nested.get(name, "")), name
    with_default = {name: field for name, field in struct.model_fields.items() if not field.is_required()}
    for name, field in with_default.items():
        value = field.get_default(call_default_factory=True)
        _, wrong = struct.examine({name: value.model_dump() if isinstance(value, Struct) else value})
        assert not [sentence for place, sentence in wrong if place[:1] == (name,)], name


class Example(Struct):
    count: Count = Field(1, description="a")
    items: Items | None = Field(None, description="b")
    pair: Pair = Field([1, 2], description="c")


def test_words_of_a_schema():
    properties = Example.model_json_schema()["properties"]
    assert [words(entry, {}) for entry in properties.values()] == [
        "an integer of at least 1", "an integer of at least 1, without a decimal point, or ~", "two numbers",
    ]  # fmt: skip


@pytest.mark.parametrize("name", TABLED)
def test_tables_in_the_documentation_are_those_of_the_structs(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- options of " in text
    assert with_tables(text) == text, f"run: basicsr options --tables {name}"


def test_the_documentation_has_every_block():
    text = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    assert all(f"<!-- options of {block} -->\n{table(block)}\n" in text for block in BLOCKS)


def test_stale_tables_are_updated(tmp_path, capsys):
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- options of logger (keep_best) -->\nstale\n<!-- end of options -->\nafter\n")
    assert main(["options", "--tables", str(file)]) == 0
    head, *rows, tail = file.read_text().splitlines()
    assert (head, tail) == ("before", "after") and any("`logger: keep_best`" in row for row in rows)
    assert "updated" in capsys.readouterr().out
    assert main(["options", "--tables", str(file)]) == 0 and "unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- options of trian -->\n<!-- end of options -->", "expected the table to be one of top level, "),
        ("<!-- options of val (pbr) -->\n<!-- end of options -->", "expected a key of val to be one of "),
        (None, "expected a Markdown file"),
    ],
)
def test_unknown_tables_are_refused(tmp_path, capsys, text, said):
    file = tmp_path / "page.md"
    if text:
        file.write_text(text)
    assert main(["options", "--tables", str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error and "page.md" in error and error.count("\n") == 1


def test_the_schema_knows_all_keys_of_all_shipped_files(tmp_path):
    file = tmp_path / "schema.json"
    assert main(["options", "--schema", "-o", str(file)]) == 0
    schema = json.loads(file.read_text())
    assert schema == editor_schema()
    assert schema["properties"].keys() == {*DiffusionFile.model_json_schema()["properties"], "base"}
    used = {key for name in shipped() for key in yaml.read_yaml(shipped_path(name))}
    assert used <= schema["properties"].keys()
    known = schema["then"]["propertyNames"]["anyOf"][0]["enum"]
    assert "residual_scale" in known and "residual_scle" not in known


def test_nothing_is_required_by_the_schema():
    """A file with `base:` may leave out anything; only conditions depend on what is there."""

    def required(schema: Any) -> list[list[str]]:
        if isinstance(schema, list):
            return [found for entry in schema for found in required(entry)]
        if not isinstance(schema, dict):
            return []
        own = [schema["required"]] if isinstance(schema.get("required"), list) else []
        return own + [found for key, entry in schema.items() if key != "if" for found in required(entry)]

    assert required(editor_schema()) == []


@pytest.mark.parametrize("arguments", [["train_BBCU_x2", "--schema"], ["--schema", "--tables", "a.md"]])
def test_name_schema_and_tables_exclude_each_other(arguments, capsys):
    assert main(["options", *arguments]) == 2
    assert "expected one of NAME, --schema and --tables" in capsys.readouterr().err


def target(needed, count: int = 3, share: float = 0.5, sides: Sequence[int] = (), eps=1, **others):
    """A function whose arguments are in a block."""


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (dict(type="T", needed=1), []),
        (dict(type="T", needed=1, count=2.0, share=1, sides=[1, 2.0], eps=0.5), []),
        (dict(type="T"), ["expected the key(s) needed in a:, found none"]),
        (dict(type="T", neded=1), ["unknown key 'neded' in a:; did you mean 'needed'?"]),
        (dict(type="T", needed=1, count=2.5), ["expected a: count to be an integer, got 2.5"]),
        (dict(type="T", needed=1, sides=[1, "2"]), ["expected a: sides to be a list of integers, got [1, '2']"]),
        (dict(type="T", needed=1, share=True, eps="x"), ["a: share to be a number, got True", "a: eps to be a number"]),
    ],
)
def test_arguments_are_checked_by_a_signature(block, said):
    found = list(wrong_arguments(target, block, "a", ignores_others=True))
    assert len(found) == len(said)
    assert all(text in sentence for text, sentence in zip(said, found, strict=True)), found


def test_a_target_with_kwargs_accepts_any_argument():
    assert not list(wrong_arguments(target, dict(type="T", needed=1, whatever=2), "a"))


def test_type_hints_that_only_type_checkers_can_read_are_ignored():
    """As torch's schedulers have, and packages that import types for type checkers alone."""

    def typed(a: "Unknown", b: int = 3, c: float = 0.5) -> None:  # noqa: F821
        pass

    assert not list(wrong_arguments(typed, dict(a="whatever", b=4), "block"))
    assert list(wrong_arguments(typed, dict(a=1, c="much"), "block")) == [
        "expected block: c to be a number, got 'much'"
    ]


def test_other_models_may_read_any_keys():
    data = dict(
        name="a", model_type="HAT", num_gpu=0, datasets={"train": {"name": "x", "type": "y", "z": 3}},
        network_g={"type": "HAT", "window": 8}, path={"w": 1}, train={"optim": 3}, tile={"size": 4},
    )  # fmt: skip
    assert AnyFile.read(data).model_extra == {"tile": {"size": 4}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(dataroot_gt=["a", "b"], dataroot_lq=["c"]), "as many folders"),
        (dict(dataroot_gt=["a"], dataroot_lq="c"), "as many folders"),
        (dict(dataroot_gt=["a"], dataroot_lq=["c"], io_backend={"type": "lmdb"}), "io_backend: disk"),
        (dict(dataroot_gt=["a"], dataroot_lq=["c"], meta_info_file="m"), "no meta_info_file"),
        (dict(dataroot_gt=[]), "to be a string, or a list of strings"),
        (dict(mean=[0.5, 0.5, 0.5]), "both mean and std"),
        (dict(io_backend={"type": "memcached"}), "server_list_cfg and client_cfg"),
    ],
)
def test_relations_of_a_data_set(changes, said):
    data = dict(name="a", type="PairedImageDataset", dataroot_gt="b", dataroot_lq="c", io_backend={"type": "disk"})
    assert PairedDataset.read(data | dict(dataroot_gt=["a", "b"], dataroot_lq=["c", "d"])).dataroot_gt == ["a", "b"]
    assert said in error_of(PairedDataset, data | changes)


def test_a_name_in_angle_brackets_is_no_type_of_data_sets():
    data = dict(name="a", type="PairedImageDataset", dataroot_gt="b", dataroot_lq="c", io_backend={"type": "disk"})
    said = error_of(OptionFile, dict(name="a", datasets={"<x>": data | dict(gt_sise=8)}))
    assert "unknown key 'gt_sise'" in said and "did you mean 'gt_size'?" in said


@pytest.mark.parametrize(
    ("scheduler", "further", "said"),
    [
        (dict(type="CosineAnnealingRestartLR", periods=[4, 4]), {}, "a number for each of periods [4, 4], got [1]"),
        (dict(type="MultiStepLR", milestones=[], restarts=[0, 5]), {}, "a number for each of restarts [0, 5], got [1]"),
        (dict(type="CosineAnnealingRestartLR", periods=[8]), {}, "periods to reach total_iter 10, got [8], 8 together"),
        (dict(type="MultiStepLR", milestones=[3]), dict(warmup_iter=4), "milestones after warmup_iter 4, got 3"),
        (dict(type="MultiStepLR", milestones=[30]), dict(warmup_iter=11), "warmup_iter of at most total_iter 10"),
        (dict(type="CosineAnnealingRestartLR", periods=[9]), {}, None),
        (dict(type="CosineAnnealingRestartLR", periods=[5, 5], restart_weights=[1, 0.5]), {}, None),
        (dict(type="MultiStepLR", milestones=[4, 8]), dict(warmup_iter=4), None),
        (dict(type="MultiStepLR", milestones=[3], gamma=1), dict(warmup_iter=4), None),
        (dict(type="AnotherPackages", periods=[1], restart_weights=[1, 2]), {}, None),
    ],
)
def test_relations_of_schedules(scheduler, further, said):
    assert Scheduler.model_fields.keys() >= {"periods", "restarts"}
    data = TRAIN | dict(scheduler=scheduler) | further
    if said is None:
        Train.read(data)
    else:
        assert said in error_of(Train, data, "train")


@pytest.mark.parametrize("loss", ["pixel_opt", "perceptual_opt"])
def test_a_loss_must_be_one_number(loss):
    data = TRAIN | {loss: dict(type="L1Loss", reduction="none")}
    assert f"train: {loss}: reduction: mean or sum, got none" in error_of(Train, data)


def test_a_uniform_noise_level_needs_it_as_the_time_input():
    data = dict(load_options(shipped_path("train_SR3_x2")), noise_level_sampling="uniform", time_input="timestep")
    assert "expected time_input: noise_level" in error_of(DiffusionFile, data)
    DiffusionFile.read(dict(data, time_input="noise_level"))


def test_options_that_are_handed_over_are_not_read_again(monkeypatch, tmp_path):
    from basicsr.utils import options

    from bidiffsr_arch.compat.options import handed_over

    file = shipped_path("train_BIDiffSR_x2")
    wanted = load_options(file, ["train:total_iter=7", "num_gpu=0"])
    for data in wanted["datasets"].values():
        data.update(dataroot_gt=str(tmp_path), dataroot_lq=str(tmp_path))

    def refuse(*args, **kwargs):
        raise AssertionError("the option file was parsed again")

    monkeypatch.setattr(yaml, "parse", refuse)
    monkeypatch.setattr(options.yaml, "load", lambda stream, Loader: Loader(stream).get_single_data())
    args = argparse.Namespace(opt=str(file), launcher="none", auto_resume=False, debug=False, local_rank=0)
    args.force_yml = None
    with handed_over(args, wanted):
        opt, given = options.parse_options(str(tmp_path))
    assert opt["train"]["total_iter"] == 7 and isinstance(given.options, OrderedDict)
    assert "session" not in given.options, "what BasicSR changes is not what was given"

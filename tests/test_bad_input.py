"""Hundreds of wrong inputs: each gives one line that names the mistake, and never a traceback, a hang or code
execution."""

import json
import os
from collections import OrderedDict
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import bad_input
import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.data.paired_image_dataset import PairedImageDataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import basicsr

from bidiffsr_arch.cli import main
from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed import Description, load_packed, pack, save_packed
from bidiffsr_arch.parameters import read_parameters
from bidiffsr_arch.training.option_check import check_options

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # written in C, if it was built


@pytest.fixture
def run_options(run_options: dict[str, Any]) -> dict[str, Any]:
    run_options["val"]["metrics"].pop("lpips")
    return run_options | {"num_gpu": 0}


def read(options: dict[str, Any] | bytes) -> OrderedDict:
    """The checks of `basicsr train` before it builds anything."""
    content = options if isinstance(options, bytes) else yaml.dump(options, Dumper=DUMPER, sort_keys=False).encode()
    Path("bad.yml").write_bytes(content)
    loaded = load_options("bad.yml")
    if "train" not in loaded["datasets"] or not loaded.get("train") or not loaded.get("logger"):
        raise InputError("expected train, logger and a train data set")  # as cli/train.py does
    check_options(loaded, "bad.yml", is_train=True)
    SuperResolution(DiffusionOptions.part_of(loaded))
    return loaded


def refused(action, *arguments) -> str:
    """The message of the InputError that the action raises; empty if it raises none.

    A message of another error has two lines, so that tests refuse it.
    """
    try:
        action(*arguments)
    except InputError as error:
        return str(error)
    except Exception as error:
        return f"a traceback:\n{type(error).__name__}: {error}"
    return ""


def test_the_good_option_file_is_read(workplace, run_options):
    assert read(run_options)["name"] == "tiny"


def test_a_cosine_may_end_above_zero(workplace, run_options):
    run_options["train"]["scheduler"] = dict(type="CosineAnnealingRestartLR", periods=[4], eta_min=1e-7)
    check_options(run_options, "options.yml", is_train=True)


def test_bad_option_files_are_named(workplace, run_options):
    cases = bad_input.bad_options(run_options)
    messages = {case: (refused(read, options), word) for case, (options, word) in cases.items()}
    wrong = [(case, message) for case, (message, word) in messages.items() if word not in message or "\n" in message]
    assert not wrong, "\n".join(map(str, [len(cases), *wrong]))


def test_files_that_are_no_option_file_are_named(workplace, monkeypatch):
    called = []
    monkeypatch.setattr(os, "system", called.append)
    for case, content in bad_input.bad_option_bytes().items():
        message = refused(read, content)
        assert message and "\n" not in message, case
    assert not called


@pytest.fixture
def data(workplace, run_options) -> dict[str, Any]:
    """Options of the training data set."""
    return run_options["datasets"]["train"] | {"phase": "train", "scale": 2, "gt_size": 4}


@pytest.mark.parametrize("side", ["HR/0", "LR/0x2"])
def test_bad_images_are_named(data, side):
    wrong = []
    for case, content in bad_input.bad_images().items():
        Path(f"data/{side}.png").write_bytes(content)
        message = refused(lambda: PairedImageDataset(deepcopy(data))[0])
        if f"{side.split('/')[0]}/" not in message or "\n" in message:
            wrong.append((case, message))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("side", ["HR/0", "LR/0x2"])
def test_unusual_images_are_read_or_reported(data, side):
    read_too = 0
    for case, content in bad_input.odd_images().items():
        Path(f"data/{side}.png").write_bytes(content)
        try:
            sample = PairedImageDataset(deepcopy(data))[0]
            assert sample["gt"].shape == (3, 4, 4) and torch.isfinite(sample["gt"]).all(), case
            read_too += 1
        except InputError as error:
            assert "data/" in str(error), case
    assert read_too or side == "LR/0x2"


def checkpoint(content: Any) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def network(tiny_network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in list(tiny_network.state_dict().items())[:6]}


def test_bad_checkpoints_are_named(network, tmp_path):
    cases = bad_input.bad_checkpoints(checkpoint({"params": network}))
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = {name: tensor.clone() for name, tensor in network.items()}
        next(iter(broken.values())).view(-1)[0] = value
        cases[f"{value} in a weight"] = checkpoint({"params_ema": broken})
    contents = {"a number": 3, "a list": [1], "a text": "x", "nothing": None, "empty": {}, "a tensor": torch.zeros(3),
                "texts": {"params": {"a": "b"}}, "no tensors": {"params": {}}}  # fmt: skip
    cases |= {f"{name} saved": checkpoint(content) for name, content in contents.items()}
    for case, content in cases.items():
        file = tmp_path / "net.pth"
        file.write_bytes(content)
        message = refused(read_parameters, file)
        assert "net.pth" in message and "\n" not in message, (case, message)


def test_code_in_a_checkpoint_does_not_run(network, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for case in (Code(), {"params": Code()}, {"params": network, "more": [Code()]}, [Code()]):
        (tmp_path / "net.pth").write_bytes(checkpoint(case))
        assert "does not load" in refused(read_parameters, tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def empty(side):
    for file in Path("data", side).iterdir():
        file.unlink()


FOLDERS = {
    "one LQ less": lambda: Path("data/LR/0x2.png").unlink(),
    "one GT less": lambda: Path("data/HR/0.png").unlink(),
    "one LQ more": lambda: Path("data/LR/9x2.png").write_bytes(b""),
    "another name": lambda: Path("data/LR/0x2.png").rename("data/LR/zero.png"),
    "another scale's names": lambda: Path("data/LR/0x2.png").rename("data/LR/0x4.png"),
    "another suffix": lambda: Path("data/LR/0x2.png").rename("data/LR/0x2.jpg"),
    "no suffix": lambda: Path("data/LR/0x2.png").rename("data/LR/0x2"),
    "no LQ": lambda: empty("LR"),
    "no GT": lambda: empty("HR"),
    "neither": lambda: (empty("LR"), empty("HR")),
    "LQ larger than GT": lambda: cv2.imwrite("data/LR/0x2.png", np.zeros((48, 40, 3), np.uint8)),
    "GT of another size": lambda: cv2.imwrite("data/HR/1.png", np.zeros((25, 20, 3), np.uint8)),
    "GT smaller than a crop": lambda: [
        cv2.imwrite(f"data/{name}", np.zeros((side, side, 3), np.uint8))
        for name, side in (("HR/2.png", 8), ("LR/2x2.png", 4))
    ],
    "a file for a folder": lambda: (empty("LR"), Path("data/LR").rmdir(), Path("data/LR").write_text("x")),
    "a folder among images": lambda: (Path("data/HR/0.png").unlink(), Path("data/HR/0.png").mkdir()),
    "a text among images": lambda: Path("data/HR/readme.txt").write_text("x"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_bad_folders_are_named(workplace, run_options, capsys, case):
    FOLDERS[case]()
    run_options["datasets"]["train"]["dataset_enlarge_ratio"] = 1
    run_options["datasets"]["train"]["batch_size_per_gpu"] = 3
    assert basicsr("train", run_options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
    assert len(lines) == 1 and "data/" in lines[0], lines


def test_at_least_300_bad_inputs_are_tried(run_options, network):
    options = bad_input.bad_options(run_options)
    distinct = {
        "option files": len({json.dumps(case, sort_keys=True) for case, _ in options.values()}),
        "files that are no option file": len(set(bad_input.bad_option_bytes().values())),
        "images, as LQ and as GT": 2 * len(set(bad_input.bad_images().values())),
        "odd images, as LQ and as GT": 2 * len(set(bad_input.odd_images().values())),
        "checkpoints": len(set(bad_input.bad_checkpoints(checkpoint(network)).values())) + 11 + 4,
        "folders": len(FOLDERS),
    }
    print(distinct, sum(distinct.values()))
    assert sum(distinct.values()) >= 300 and min(distinct.values()) >= 15


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(choice=st.integers(0, 10**6), value=VALUES)
def test_any_value_of_any_key_is_accepted_or_reported(workplace, run_options, choice, value):
    places = [place for place, _ in bad_input.leaves(run_options)]
    message = refused(read, bad_input.changed(run_options, places[choice % len(places)], value))
    assert "\n" not in message


@fuzz
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_no_option_file(workplace, content):
    message = refused(read, content)
    assert message and "\n" not in message


@fuzz
@given(place=st.integers(0, 10**6), mask=st.integers(1, 255))
def test_a_checkpoint_with_a_flipped_byte_is_read_or_reported(network, tmp_path, place, mask):
    content = bytearray(checkpoint({"params": network}))
    content[place % len(content)] ^= mask
    (tmp_path / "net.pth").write_bytes(content)
    message = refused(read_parameters, tmp_path / "net.pth")
    assert "\n" not in message


@fuzz
@given(place=st.integers(0, 10**6), mask=st.integers(1, 255), suffix=st.sampled_from([".png", ".jpg", ".bmp", ".webp"]))
def test_an_image_with_a_flipped_byte_is_read_or_reported(data, place, mask, suffix):
    content = bytearray(bad_input.encoded(suffix, bad_input.an_image()))
    content[place % len(content)] ^= mask
    Path("data/HR/0.png").write_bytes(content)
    message = refused(lambda: PairedImageDataset(deepcopy(data))[0])
    assert not message or "data/HR/0.png" in message


@pytest.fixture
def packed(tiny_options, tiny_network, tmp_path) -> bytes:
    """A packed network's file."""
    description = Description({"type": "BIDiffSRUNet", **tiny_options}, scale=2, steps=4)
    save_packed(pack(tiny_network, "torch"), tmp_path / "whole.safetensors", description)
    return (tmp_path / "whole.safetensors").read_bytes()


@fuzz
@given(place=st.integers(0, 10**6), mask=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_packed_file_is_named(packed, tmp_path, place, mask, cut):
    content = bytearray(packed)
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= mask
    (tmp_path / "net.safetensors").write_bytes(content)
    message = refused(load_packed, tmp_path / "net.safetensors")
    assert "\n" not in message
    head = 8 + int.from_bytes(packed[:8], "little")
    assert "net.safetensors" in message or (place < head and not cut), "a name in the header may change unnoticed"


@pytest.mark.parametrize("arguments", [
    [], ["-opt"], ["-opt", ""], ["-opt", "nowhere.yml"], ["-opt", "."], ["-opt", "bad.yml", "--launcher", "mpi"],
    ["-opt", "bad.yml", "--force_yml", "x"], ["-opt", "bad.yml", "--force_yml", "a:b:c=1"],
    ["-opt", "bad.yml", "--force_yml", "train:total_iter=__import__('os').system('true')"],
    ["-opt", "bad.yml", "--force_yml", "=1"], ["-opt", "bad.yml", "--force_yml", "train:=1"],
    ["-opt", "bad.yml", "--force_yml", "train:optim_g:lr:x=1"], ["-opt", "bad.yml", "--local_rank", "x"],
])  # fmt: skip
def test_bad_command_lines_are_status_2(workplace, run_options, capsys, arguments):
    Path("bad.yml").write_text(yaml.safe_dump(run_options))
    try:
        status = main(["train", *arguments])
    except SystemExit as end:  # argparse
        status = end.code
    assert status == 2 and "Traceback" not in capsys.readouterr().err

"""`basicsr train --dry-run`: its checks, the problems it finds, and that it writes nothing."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_run import basicsr


def files() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file()}


def test_everything_is_checked_and_nothing_written(workplace, run_options, capsys):
    Path("options.yml").touch()
    before = files()
    assert basicsr("train", run_options, "--dry-run") == 0
    said = capsys.readouterr().out
    for line in (
        r"data train: 3 pairs, counts, names and sizes fit",
        r"data val: 3 pairs",
        r"network: 0\.\d+ M Params, 0\.\d+ G OPs at 16x16",
        r"one iteration: done in \d+\.\d s .*, peak memory \d\.\d\d GiB",
        r"checkpoints: 2 of 0\.00 GiB each, 0\.00 GiB in all, [\d.]+ GiB are free",
        r"dry run: everything is in order",
    ):
        assert re.search(line, said), (line, said)
    assert files() == before


def test_every_bad_pair_is_found_not_only_the_first(workplace, run_options, capsys):
    cv2.imwrite("data/HR/0.png", np.zeros((25, 20, 3), np.uint8))
    Path("data/LR/2x2.png").write_bytes(b"")
    assert basicsr("train", run_options, "--dry-run") == 2
    said = capsys.readouterr().err
    assert "2 of 3 pairs cannot be used" in said and "HR/0.png" in said and "LR/2x2.png" in said


@pytest.mark.parametrize(("kept", "needed"), [(None, "2 of"), (1, "1 of")])
def test_too_little_disk_space_is_reported(workplace, run_options, monkeypatch, capsys, kept, needed):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(1, 1, 1))
    run_options["logger"]["keep_newest"] = kept
    assert basicsr("train", run_options, "--dry-run") == 1
    said = capsys.readouterr().err
    assert f"checkpoints: {needed}" in said and "set logger: keep_newest" in said


def test_a_checkpoint_that_does_not_fit_is_found(workplace, run_options, capsys):
    Path("net.pth").write_bytes(b"no weights")
    run_options["path"]["pretrain_network_g"] = "net.pth"
    assert basicsr("train", run_options, "--dry-run") == 2
    assert "net.pth, which does not load" in capsys.readouterr().err


def test_a_launcher_is_refused(workplace, run_options, capsys):
    assert basicsr("train", run_options, "--dry-run", "--launcher", "pytorch") == 2
    assert "leave --launcher pytorch out" in capsys.readouterr().err

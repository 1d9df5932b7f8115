"""Which checkpoints are kept, for any state of the folder."""

import json
from pathlib import Path

import pytest
import torch
from small_run import basicsr

from bidiffsr_arch.training.retention import SCORES, Retention, retention_of


@pytest.fixture
def folders(tmp_path) -> dict[str, str]:
    return {"models": str(tmp_path), "training_states": str(tmp_path)}


def retention(folders, better: str = "higher", **logger) -> Retention:
    metric = dict(type="calculate_psnr", better=better)
    return retention_of({"logger": logger, "val": {"metrics": {"psnr": metric}}, "path": folders})


def save(folders, *iterations: int) -> None:
    for iteration in iterations:
        for name in (f"{iteration}.state", f"net_g_{iteration}.pth", f"net_d_{iteration}.pth"):
            Path(folders["models"], name).touch()


def kept(folders) -> list[int]:
    states = sorted(int(path.stem) for path in Path(folders["models"]).glob("*.state"))
    networks = sorted(path.name for path in Path(folders["models"]).glob("net_*"))
    assert networks == sorted(f"net_{label}_{iteration}.pth" for iteration in states for label in "dg")
    return states


def test_abandoned_states_do_not_count_as_newest(folders):
    """Trained to 6, resumed from 3: 5 and 6 belong to a run that is not continued."""
    save(folders, 1, 2, 3, 4, 5, 6)
    retention(folders, keep_newest=2).prune(4)
    assert kept(folders) == [3, 4]


@pytest.mark.parametrize(("better", "best"), [("higher", 4), ("lower", 2)])
def test_a_score_that_is_not_finite_is_ignored(folders, better, best):
    """It ranked first, since no score compares as better than NaN."""
    save(folders, 1, 2, 3, 4, 5, 6)
    keep = retention(folders, better, keep_newest=1, keep_best="psnr")
    for iteration, score in enumerate([float("nan"), 1.0, float("-inf"), 3.0, float("inf")], 1):
        keep.note(iteration, {"psnr": score})
    keep.prune(6)
    assert kept(folders) == [best, 6]
    assert json.loads(Path(folders["models"], SCORES).read_text()) == {"2": 1.0, "4": 3.0}


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", '{"1": "best"}', '{"first": 1}', "\0"])
def test_unreadable_scores_are_recorded_afresh(folders, content, caplog):
    """They made every resume fail."""
    save(folders, 1, 2)
    Path(folders["models"], SCORES).write_text(content)
    keep = retention(folders, keep_newest=1, keep_best="psnr")
    keep.prune(2)
    keep.note(2, {"psnr": 1.0})
    assert kept(folders) == [2] and json.loads(Path(folders["models"], SCORES).read_text()) == {"2": 1.0}
    assert "cannot be read" in caplog.text


def test_scores_of_an_abandoned_run_are_dropped(folders):
    keep = retention(folders, keep_newest=1, keep_best="psnr")
    for iteration in (1, 2, 3, 4):
        keep.note(iteration, {"psnr": float(iteration)})
    keep.note(3, {"psnr": 0.0})
    assert json.loads(Path(folders["models"], SCORES).read_text()) == {"1": 1.0, "2": 2.0, "3": 0.0}


def test_training_goes_back_to_an_earlier_state(workplace, run_options):
    """The checkpoint that was just written stays."""
    options = run_options
    options["val"], options["logger"]["save_checkpoint_freq"] = None, 1
    del options["datasets"]["val"]
    assert basicsr("train", options, "--force_yml", "train:total_iter=6") == 0
    options["path"]["resume_state"] = "experiments/tiny/training_states/3.state"
    options["logger"]["keep_newest"] = 1
    assert basicsr("train", options, "--force_yml", "train:total_iter=5") == 0
    states = Path("experiments/tiny/training_states")
    assert [path.name for path in states.iterdir()] == ["5.state"]
    assert torch.load(states / "5.state", weights_only=True)["iter"] == 5


def test_a_metric_may_appear_between_stop_and_resume(workplace, run_options):
    """As LPIPS does if its weights are downloaded in between."""
    options = run_options
    metrics = options["val"]["metrics"]
    options["val"] |= {"val_freq": 1, "metrics": {"psnr": metrics["psnr"]}, "save_img": False}
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    options["val"]["metrics"] = {"psnr": metrics["psnr"], "ssim": metrics["ssim"]}
    assert basicsr("train", options, "--auto_resume") == 0
    best = torch.load("experiments/tiny/training_states/4.state", weights_only=True)["best"]["Set5"]
    assert best.keys() == {"psnr", "ssim"} and best["psnr"]["iter"] in (1, 3) and best["ssim"]["iter"] == 3

"""Option files with BasicSR's trainer and test pipeline, through the command."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_run import basicsr, log_of, losses

from bidiffsr_arch.cli import main


@pytest.fixture
def options(run_options: dict[str, Any]) -> dict[str, Any]:
    return run_options


def test_train_stop_resume_and_test_with_the_references_keys(workplace, options, capfd):
    assert basicsr("train", options) == 0
    whole = log_of("experiments/tiny")
    assert len(losses(whole)) == 4
    for metric, value in (("psnr", r"\d+\.\d+"), ("ssim", r"-?0\.\d+"), ("params", r"0\.\d+"), ("ops", r"0\.\d+")):
        assert re.search(rf"# {metric}: {value}", whole), metric
    assert whole.count("lpips: n/a") == 1 and "basicsr data lpips-weights" in whole

    # A separate run that is stopped after two iterations and continues with the third.
    options["name"] = "stopped"
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    assert basicsr("train", options, "--auto_resume") == 0
    resumed = log_of("experiments/stopped")
    assert "Resuming training from epoch: 0, iter: 2." in resumed
    assert re.findall(r"iter: +(\d+),", resumed) == ["3", "4"] and len(losses(resumed)) == 2

    saved = torch.load("experiments/tiny/models/net_g_4.pth", weights_only=True)
    assert set(saved) == {"description", "params", "params_ema"}

    options["name"], options["path"]["pretrain_network_g"] = "tested", "experiments/tiny/models/net_g_4.pth"
    options["datasets"] = dict(test_1=options["datasets"]["val"])
    assert basicsr("test", options) == 0
    tested = log_of("results/tested")
    assert "with param key: [params_ema]" in tested and "Current net - loaded net" not in tested
    psnr = re.search(r"# psnr: (\S+)", whole[whole.rindex("Validation") :]).group(1)
    assert re.search(r"# psnr: (\S+)", tested).group(1) == psnr
    images = sorted(Path("results/tested/visualization/Set5").glob("*.png"))
    assert [path.name for path in images] == [f"{index}x2_test.png" for index in range(3)]
    assert cv2.imread(str(images[0])).shape == (24, 20, 3)


def test_an_interrupted_experiment_is_not_overwritten(workplace, options):
    options["train"]["total_iter"], options["val"] = 1, None
    del options["datasets"]["val"]
    assert basicsr("train", options) == 0
    assert basicsr("train", options) == 0
    assert len(list(Path("experiments").glob("tiny_archived_*"))) == 1


def absent_folder(options):
    options["datasets"]["val"]["dataroot_lq"] = "data/absent"


def unknown_network(options):
    options["network_g"]["type"] = "BIDiffSRUnet"


def gpu(options):
    options["num_gpu"] = 1


def other_size(options):
    torch.save({"params": {"downs.0.weight": torch.zeros(1)}}, "other.pth")
    options["path"] |= dict(pretrain_network_g="other.pth", strict_load_g=True)


def mismatched(options):
    cv2.imwrite("data/HR/1.png", np.zeros((30, 20, 3), np.uint8))


def truncated(options):
    path = Path("data/LR/2x2.png")
    path.write_bytes(path.read_bytes()[:60])


def no_lq(options):
    Path("data/LR/0x2.png").unlink()


def bad_fusion(options):
    options["network_g"]["fusion"] = "sum"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (absent_folder, r"data/absent"),
        (unknown_network, r"BIDiffSRUnet.*BIDiffSRUNet"),
        (gpu, r"num_gpu"),
        (other_size, r"other\.pth"),
        (mismatched, r"data/HR/1\.png"),
        (truncated, r"data/LR/2x2\.png"),
        (no_lq, r"0x2\.png|0\.png|different number"),
        (bad_fusion, r"fusion to be one of"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_users_mistake_is_one_line_and_status_2(workplace, options, damage, message, capsys):
    if damage is gpu and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    damage(options)
    assert basicsr("train", options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 4), (12, 10, 3)], ids=["gray", "alpha", "colour"])
def test_gray_and_transparent_images_are_read_in_colour_as_basicsr_does(workplace, options, shape):
    cv2.imwrite("data/LR/0x2.png", np.full(shape, 100, np.uint8))
    options["train"]["total_iter"] = 1
    assert basicsr("train", options) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 7)])
def test_images_smaller_than_the_networks_multiple_are_tested(workplace, options, size):
    for index in range(3):
        cv2.imwrite(f"data/LR/{index}x2.png", np.full((*size, 3), 90, np.uint8))
        cv2.imwrite(f"data/HR/{index}.png", np.full((2 * size[0], 2 * size[1], 3), 90, np.uint8))
    options["datasets"], options["val"]["metrics"] = dict(test_1=options["datasets"]["val"]), None
    del options["train"]
    assert basicsr("test", options) == 0


def test_packed_validation_gives_the_same_psnr(workplace, options):
    """0.02 dB: rounding flips a few signs in any order of operations."""
    options["val"]["metrics"] = dict(psnr=options["val"]["metrics"]["psnr"])
    assert basicsr("train", options) == 0
    checkpoint = "experiments/tiny/models/net_g_4.pth"
    options["path"]["pretrain_network_g"] = checkpoint
    options["datasets"] = dict(test_1=options["datasets"]["val"])

    def psnr(name: str, **path: str) -> float:
        options["name"] = name
        options["path"] |= path
        assert basicsr("test", options) == 0
        return float(re.search(r"# psnr: (\S+)", log_of(f"results/{name}")).group(1))

    expected = psnr("float")
    options["val"]["packed"] = True
    assert psnr("bits") == pytest.approx(expected, abs=0.02)

    assert main(["pack", checkpoint, "-opt", "options.yml", "-o", "tiny.safetensors"]) == 0
    del options["val"]["packed"]
    assert psnr("file", pretrain_network_g="tiny.safetensors") == pytest.approx(expected, abs=0.02)

    options["network_g"]["fusion"] = "split"
    assert basicsr("test", options) == 2

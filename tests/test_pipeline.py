"""The whole way: an option file under BasicSR's own trainer and test pipeline, through the command."""

import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from bidiffsr_arch.cli import main
from bidiffsr_arch.data.resize import imresize


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory with three pairs of pictures, data/HR (24x20) and data/LR (12x10)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIDIFFSR_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    rng = np.random.default_rng(0)
    for folder in ("data/HR", "data/LR"):
        Path(folder).mkdir(parents=True)
    for index in range(3):
        picture = cv2.resize(rng.integers(0, 256, (6, 5, 3), np.uint8), (20, 24), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"data/HR/{index}.png", picture)
        cv2.imwrite(f"data/LR/{index}x2.png", imresize(picture, 0.5))
    return tmp_path


@pytest.fixture
def options(tiny_options: dict[str, Any]) -> dict[str, Any]:
    """An option file with the reference's keys, small."""
    pairs = dict(
        task="SR",
        type="MultiPairedImageDataset",
        dataroot_gt="data/HR",
        dataroot_lq="data/LR",
        filename_tmpl="{}x2",
        io_backend=dict(type="disk"),
    )
    border = dict(crop_border=2, test_y_channel=True)
    return dict(
        name="tiny",
        model_type="BIDiffSRModel",
        scale=2,
        num_gpu="auto",
        manual_seed=10,
        find_unused_parameters=True,
        datasets=dict(
            train=pairs
            | dict(
                name="DF2K",
                gt_size=16,
                use_hflip=True,
                use_rot=True,
                use_shuffle=True,
                num_worker_per_gpu=0,
                batch_size_per_gpu=2,
                dataset_enlarge_ratio=4,
                prefetch_mode=None,
            ),
            val=pairs | dict(name="Set5"),
        ),
        network_g=dict(type="BIDiffSRUNet", in_channel=6, out_channel=3, attn_res=[], **tiny_options),
        beta_schedule=dict(
            scheduler_type="DDIM",
            schedule="linear",
            n_timestep=100,
            linear_start=1e-6,
            linear_end=1e-2,
            prediction_type="epsilon",
            num_inference_steps=2,
            guidance_scale=7.5,
            is_guidance=False,
        ),
        path=dict(pretrain_network_g=None, strict_load_g=False, resume_state=None),
        train=dict(
            ema_decay=0.9,
            optim_g=dict(type="Adam", lr=1e-4, weight_decay=0, betas=[0.9, 0.99]),
            scheduler=dict(type="MultiStepLR", milestones=[500000], gamma=1),
            total_iter=4,
            warmup_iter=-1,
            pixel_opt=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
        ),
        val=dict(
            val_freq=2e4,
            save_img=True,
            suffix="test",
            pbar=False,
            metrics=dict(
                psnr=dict(type="calculate_psnr", **border),
                ssim=dict(type="calculate_ssim", **border),
                lpips=dict(type="calculate_lpips", crop_border=4, better="lower"),
                params=dict(type="calculate_params", better="lower"),
                ops=dict(type="calculate_ops", input_size=[64, 64], better="lower"),
            ),
        ),
        logger=dict(
            print_freq=1, save_checkpoint_freq=2e0, use_tb_logger=False, wandb=dict(project=None, resume_id=None)
        ),
        dist_params=dict(backend="nccl", port=29500),
    )


def basicsr(command: str, options: dict[str, Any], *arguments: str) -> int:
    """Run the command in this process, with a logger of its own as a new process would have."""
    from basicsr.utils import logger

    logger.initialized_logger.clear()
    logging.getLogger("basicsr").handlers.clear()
    Path("options.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    return main([command, "-opt", "options.yml", *arguments])


def log_of(folder: str) -> str:
    return max(Path(folder).glob("*.log"), key=lambda path: path.stat().st_mtime).read_text()


def losses(log: str) -> list[str]:
    return re.findall(r"l_pix: (\S+)", log)


def test_train_stop_resume_and_test_with_the_references_keys(workplace, options, capfd):
    assert basicsr("train", options) == 0
    whole = log_of("experiments/tiny")
    assert len(losses(whole)) == 4
    for metric, value in (("psnr", r"\d+\.\d+"), ("ssim", r"-?0\.\d+"), ("params", r"0\.\d+"), ("ops", r"0\.\d+")):
        assert re.search(rf"# {metric}: {value}", whole), metric
    assert whole.count("lpips: n/a") == 1 and "basicsr data lpips-weights" in whole

    # A run of its own that is stopped after two iterations, and goes on with the third.
    options["name"] = "stopped"
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    assert basicsr("train", options, "--auto_resume") == 0
    resumed = log_of("experiments/stopped")
    assert "Resuming training from epoch: 0, iter: 2." in resumed
    assert re.findall(r"iter: +(\d+),", resumed) == ["3", "4"] and len(losses(resumed)) == 2

    saved = torch.load("experiments/tiny/models/net_g_4.pth", weights_only=True)
    assert set(saved) == {"params", "params_ema"}

    options["name"], options["path"]["pretrain_network_g"] = "tested", "experiments/tiny/models/net_g_4.pth"
    options["datasets"] = dict(test_1=options["datasets"]["val"])
    assert basicsr("test", options) == 0
    tested = log_of("results/tested")
    assert "with param key: [params_ema]" in tested and "Current net - loaded net" not in tested
    psnr = re.search(r"# psnr: (\S+)", whole[whole.rindex("Validation") :]).group(1)
    assert re.search(r"# psnr: (\S+)", tested).group(1) == psnr
    pictures = sorted(Path("results/tested/visualization/Set5").glob("*.png"))
    assert [path.name for path in pictures] == [f"{index}x2_test.png" for index in range(3)]
    assert cv2.imread(str(pictures[0])).shape == (24, 20, 3)


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
def test_gray_and_transparent_pictures_are_read_in_colour_as_basicsr_does(workplace, options, shape):
    cv2.imwrite("data/LR/0x2.png", np.full(shape, 100, np.uint8))
    options["train"]["total_iter"] = 1
    assert basicsr("train", options) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 7)])
def test_pictures_smaller_than_the_networks_multiple_are_tested(workplace, options, size):
    for index in range(3):
        cv2.imwrite(f"data/LR/{index}x2.png", np.full((*size, 3), 90, np.uint8))
        cv2.imwrite(f"data/HR/{index}.png", np.full((2 * size[0], 2 * size[1], 3), 90, np.uint8))
    options["datasets"], options["val"]["metrics"] = dict(test_1=options["datasets"]["val"]), None
    del options["train"]
    assert basicsr("test", options) == 0

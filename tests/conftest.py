"""Fixtures that several test files share."""

import gc
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bidiffsr_arch  # noqa: F401  # isort: skip  (before torch, whose threads wait as it chooses)
import cv2
import numpy as np
import pytest
import small_run
import torch

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.networks import Weights
from bidiffsr_arch.upscale.upscaler import Upscaler

PROJECT = Path(__file__).parents[1]


def pytest_collectstart() -> None:
    """Patch BasicSR, and torchvision with it, before test files import them or lpips.

    The process that only distributes tests to others does not need them, which take seconds to import.
    """
    import basicsr  # noqa: F401


def pytest_collection_finish() -> None:
    """Let the garbage collector skip imported modules and collected tests, which stay to the end: 6 % less time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def benchmark_root() -> Path:
    """Folder of the benchmark sets (`Set5/HR`, `Set5/LR_bicubic/X2`, ...); without it the test is skipped."""
    root = Path(os.environ.get("BIDIFFSR_BENCHMARK_ROOT", PROJECT / "datasets" / "benchmark"))
    if not (root / "Set5" / "HR").is_dir():
        pytest.skip(f"no benchmark images in {root} (set BIDIFFSR_BENCHMARK_ROOT to the folder that has Set5/HR)")
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system of 64 KiB; without the right to mount one the test is skipped."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a log may still be open


@pytest.fixture
def tiny_options() -> dict[str, Any]:
    """Constructor arguments of the smallest BI-DiffSR UNet that has every kind of layer; a new dictionary for each
    test."""
    return dict(
        inner_channel=8,
        norm_groups=4,
        channel_mults=[1, 2],
        res_blocks=1,
        dropout=0.0,
        image_size=16,
        fp_res=[16],
        total_step=100,
        dynamic_group=3,
    )


@pytest.fixture
def tiny_network(tiny_options: dict[str, Any]) -> BIDiffSRUNet:
    """The smallest BI-DiffSR UNet, in eval mode, with reproducible weights."""
    torch.manual_seed(0)
    return BIDiffSRUNet(**tiny_options).eval()


class NoResidual(torch.nn.Module):
    """Predicts a residual of zero."""

    def forward(self, x_t: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Zeros of x_t's shape."""
        return torch.zeros_like(x_t)


@pytest.fixture
def bicubic_upscaler() -> Upscaler:
    """x2 by a network that predicts no residual, so that its results are bicubic interpolation."""
    schedule = dict(n_timestep=10, prediction_type="sample", num_inference_steps=1)
    options = dict(scale=2, diffuse="residual", residual_scale=4.0, beta_schedule=schedule)
    return Upscaler(Weights(NoResidual(), options, multiple=1))


@pytest.fixture
def options(tiny_options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options of a training run, as BasicSR passes them to a model."""
    return dict(
        name="tiny",
        model_type="BIDiffSRModel",
        scale=2,
        num_gpu=0,
        manual_seed=7,
        dist=False,
        rank=0,
        world_size=1,
        is_train=True,
        network_g=dict(type="BIDiffSRUNet", **tiny_options),
        beta_schedule=dict(n_timestep=100, linear_start=1e-4, linear_end=5e-2, num_inference_steps=4),
        path=dict(models=str(tmp_path), training_states=str(tmp_path)),
        train=dict(
            total_iter=100,
            ema_decay=0.5,
            optim_g=dict(type="Adam", lr=1e-3),
            scheduler=dict(type="MultiStepLR", milestones=[1000], gamma=1),
            pixel_opt=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
        ),
        val=dict(metrics=None),
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory with three pairs of images, data/HR (24x20) and data/LR (12x10)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIDIFFSR_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    rng = np.random.default_rng(0)
    for folder in ("data/HR", "data/LR"):
        Path(folder).mkdir(parents=True)
    for index in range(3):
        image = cv2.resize(rng.integers(0, 256, (6, 5, 3), np.uint8), (20, 24), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"data/HR/{index}.png", image)
        cv2.imwrite(f"data/LR/{index}x2.png", imresize(image, 0.5))
    return tmp_path


@pytest.fixture(scope="session")
def train_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], None]:
    """`basicsr train` in a `workplace`; further calls with the same options give a copy of the first run's folder."""
    runs: dict[str, Path] = {}

    def train(options: dict[str, Any]) -> None:
        run, key = Path("experiments", options["name"]), json.dumps(options)
        if key in runs:
            shutil.copytree(runs[key], run)
        else:
            assert small_run.basicsr("train", options) == 0
            runs[key] = Path(shutil.copytree(run, tmp_path_factory.mktemp("run") / run.name))

    return train


@pytest.fixture
def run_options(tiny_options: dict[str, Any]) -> dict[str, Any]:
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

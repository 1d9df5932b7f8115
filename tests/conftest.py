"""Fixtures that several test files share."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bidiffsr_arch.archs import BIDiffSRUNet

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def benchmark_root() -> Path:
    """Folder of the benchmark sets (`Set5/HR`, `Set5/LR_bicubic/X2`, ...); without it the test is skipped."""
    root = Path(os.environ.get("BIDIFFSR_BENCHMARK_ROOT", PROJECT / "datasets" / "benchmark"))
    if not (root / "Set5" / "HR").is_dir():
        pytest.skip(f"no benchmark pictures in {root} (set BIDIFFSR_BENCHMARK_ROOT to the folder that has Set5/HR)")
    return root


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


@pytest.fixture
def options(tiny_options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options of a training run, as BasicSR hands them to a model."""
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

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

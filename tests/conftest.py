"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def benchmark_root() -> Path:
    """Folder of the benchmark sets (`Set5/HR`, `Set5/LR_bicubic/X2`, ...); without it the test is skipped."""
    root = Path(os.environ.get("BIDIFFSR_BENCHMARK_ROOT", PROJECT / "datasets" / "benchmark"))
    if not (root / "Set5" / "HR").is_dir():
        pytest.skip(f"no benchmark pictures in {root} (set BIDIFFSR_BENCHMARK_ROOT to the folder that has Set5/HR)")
    return root

"""What the benchmark runs, and how it reports."""

import argparse
import json

import pytest
import torch

from bidiffsr_arch.archs import SR3UNet
from bidiffsr_arch.bench import timing
from bidiffsr_arch.bench.sr3 import SR3OwnKernels
from bidiffsr_arch.bench.timing import FLOAT, OWN, PACKED, SR3, Layer, Result, Row
from bidiffsr_arch.cli import bench


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"attn_res": [16]}, {"patch_size": 2, "input_scale": 0.5, "output_scale": 2}])
def test_sr3_with_own_kernels_is_sr3(backend, options):
    torch.manual_seed(0)
    network = SR3UNet(
        inner_channel=16, norm_groups=4, channel_mults=[1, 3], res_blocks=1, image_size=16, **options
    ).eval()
    own = SR3OwnKernels(network, backend.name)
    args = (*torch.rand(2, 1, 3, 24, 40), torch.tensor([300]))
    for _ in range(2):
        torch.testing.assert_close(own(*args), network(*args), rtol=1e-4, atol=2e-5)
        assert all(block.unused for block in own.workspace._blocks)


@pytest.fixture
def run(monkeypatch, capsys):
    """The command's output, with numbers that are given in place of measured ones."""
    rows = [Row(SR3, 3.0, 4, 8), Row(FLOAT, 4.0, 5, 8), Row(PACKED, 0.5, None, 1), Row(OWN, 2.0, 4, 8)]
    monkeypatch.setattr(timing, "measure", lambda *a, **k: Result(rows, "numba-avx2"))
    monkeypatch.setattr(timing, "by_layer", lambda *a: [Layer("1-bit 3x3", 64, 64, 8, 8, 4, 1e-3, 800.0, 80.0)])

    def run(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        bench.add_arguments(parser)
        bench.run(parser.parse_args(arguments))
        return capsys.readouterr().out

    return run


def test_json(run):
    report = json.loads(run("--size", "64", "128", "--json", "--by-layer"))
    assert report["size"] == [64, 128]
    assert [row["name"] for row in report["rows"]] == [
        "SR3 float32",
        "BI-DiffSR float32",
        "BI-DiffSR packed",
        "SR3 own kernels",
    ]
    assert report["rows"][2] == {"name": PACKED, "seconds": 0.5, "peak_bytes": None, "weight_bytes": 1}
    assert report["ratios"] == {
        "SR3 float32 / packed": 6,
        "BI-DiffSR float32 / packed": 8,
        "SR3 own kernels / packed": 4,
    }
    assert {"cpu", "threads", "torch", "numba", "python", "backend"} <= report["machine"].keys()
    assert report["layers"][0]["gmacs"] == 800


def test_tables(run):
    page = run("--markdown", "--by-layer")
    assert "## 256x256" in page and "numba-avx2" in page
    assert "| BI-DiffSR packed | 0.500 |  | 0.0 |" in page
    assert "| 1-bit 3x3 64→64 | 8x8 | 4 | 1.00 | 800 | 80 | 10.0 |" in page
    assert "##" not in run()

"""Networks and reports of the benchmark."""

import argparse
import json
import os

import numpy as np
import pytest
import torch

from bidiffsr_arch.bench import memory, timing
from bidiffsr_arch.bench.layers import Layer
from bidiffsr_arch.bench.machine import machine, without_avx512
from bidiffsr_arch.bench.timing import FLOAT, OWN, PACKED, SR3, Result, Row, Settings, Subject, measure
from bidiffsr_arch.cli import bench
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.config.yaml import dump_options
from bidiffsr_arch.errors import InputError


@pytest.fixture
def run(monkeypatch, capsys):
    """The command's output for fixed numbers instead of measured ones."""
    rows = [Row(SR3, 3.0, 4, 8), Row(FLOAT, 4.0, 5, 8), Row(PACKED, 0.5, None, 1), Row(OWN, 2.0, 4, 8)]
    layers = [Layer("1-bit 3x3", 64, 64, 8, 8, 4, 1e-3, 800.0, 80.0)]
    monkeypatch.setattr(timing, "measure", lambda s: Result(rows, PACKED, machine(s.backend or "torch"), layers))

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
    assert {"cpu", "instructions", "threads", "torch", "numba", "python", "backend"} <= report["machine"].keys()
    assert report["layers"][0]["gmacs"] == 800


def test_tables(run):
    page = run("--markdown", "--by-layer", "--backend", "torch")
    assert "## 256x256" in page and ", torch; time passed" in page
    assert "| BI-DiffSR packed | 0.500 |  | 0.0 |" in page
    assert "| 1-bit 3x3 64→64 | 8x8 | 4 | 1.00 | 800 | 80 | 10.0 |" in page
    assert "##" not in run()


def test_several_backends_are_several_reports(run):
    reports = json.loads(run("--json", "--backend", "torch", "torch"))
    assert [report["machine"]["backend"] for report in reports] == ["torch", "torch"]


DIRECT = {"type": "BBCUNet", "num_feat": 8, "num_block": 1, "upscale": 2}


def test_the_network_of_an_option_file(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        timing, "measure", lambda s: seen.append(s) or Result([Row("p", 1.0, None, 1)], "p", machine("torch"), [])
    )
    run("-opt", str(shipped_path("test_BBCUNet_x4")))
    assert [(subject.name, subject.packed) for subject in seen[0].subjects] == [
        ("BBCUNet float32", False),
        ("BBCUNet packed", True),
    ]
    assert seen[0].subjects[0].network_g["upscale"] == 4
    with pytest.raises(InputError, match="expected a `network_g:` block"):
        run("-opt", str(shipped_path("test_Bicubic_x4")))
    options = load_options(shipped_path("test_BBCUNet_x4")) | {"network_g": {"type": "MSRResNet"}}
    (tmp_path / "other.yml").write_text(dump_options(options))
    with pytest.raises(InputError, match="one of BBCUNet, BIDiffSRUNet, SR3UNet"):
        run("-opt", str(tmp_path / "other.yml"))


@pytest.mark.parametrize("network_g", [DIRECT, {"type": "BIDiffSRUNet"}], ids=["direct", "diffusion"])
def test_what_is_measured(network_g, tiny_options):
    options = network_g | (tiny_options if network_g["type"] == "BIDiffSRUNet" else {})
    subjects = [Subject("float", options), Subject("packed", options, packed=True)]
    result = measure(Settings(subjects, (8, 12), 1, "torch", memory=False, by_layer=True))
    assert [row.name for row in result.rows] == ["float", "packed"] and result.packed == "packed"
    assert all(row.seconds > 0 for row in result.rows)
    assert result.rows[1].weight_bytes < result.rows[0].weight_bytes
    assert list(result.ratios()) == ["float / packed"]
    assert {layer.kind for layer in result.layers} >= {"1-bit 3x3", "float 3x3"}
    with pytest.raises(InputError, match="multiples of 2 for odd"):
        measure(Settings([Subject("odd", {"type": "BIDiffSRUNet"} | tiny_options)], (7, 8), 1))


def test_avx2_is_measured_in_a_process_without_avx512(monkeypatch):
    if not (variables := without_avx512()):
        pytest.skip("no Numba, or a CPU without AVX-512")
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    result = measure(Settings([Subject("packed", DIRECT, packed=True)], (8, 12), 1, "numba-avx2", memory=False))
    assert result.machine["instructions"] == "AVX2" and machine("torch")["instructions"] != "AVX2"
    assert result.machine["backend"] == "numba-avx2"
    assert dict(os.environ) == before


def test_the_environment_without_avx512(monkeypatch):
    binding = pytest.importorskip("llvmlite.binding")
    features = {"avx2": True, "fma": True, "avx512f": True, "avx512vpopcntdq": True, "amx-tile": True, "sse4a": False}
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    assert without_avx512() == {
        "NUMBA_CPU_FEATURES": "-amx-tile,+avx2,-avx512f,-avx512vpopcntdq,+fma,-sse4a",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    }
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"avx2": True})
    assert without_avx512() == {}


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot reset the peak")
def test_peak_memory_is_that_of_the_network_not_of_an_earlier_peak(monkeypatch):
    class Allocates(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            np.ones(50_000_000, np.uint8)

    monkeypatch.setattr(memory, "build_network", lambda network_g: Allocates())
    np.ones(200_000_000, np.uint8)  # as the compilation of kernels does
    peak = memory._peak_here({}, None, [np.zeros(1, np.float32)], None, torch.get_num_threads())
    assert 45e6 < peak < 60e6  # the kernel counts pages of each thread in batches

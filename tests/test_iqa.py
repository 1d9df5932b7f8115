"""The metrics of the real pyiqa: their values, their direction, their weights; and one line where there is no pyiqa."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric, calculate_psnr
from small_run import basicsr, log_of

from bidiffsr_arch.errors import InputError, WeightsMissing
from bidiffsr_arch.metrics import iqa
from bidiffsr_arch.metrics.iqa import calculate_iqa, load_iqa, needs_reference, set_directions

pytestmark = pytest.mark.iqa
with_pyiqa = pytest.mark.skipif(
    importlib.util.find_spec("pyiqa") is None, reason="pyiqa is not installed: make test-iqa, or .[iqa]"
)


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = cv2.GaussianBlur(rng.integers(0, 256, (200, 216, 3), np.uint8), (5, 5), 0)
    return first, (first + rng.normal(0, 12, first.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def without_pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pyiqa is not installed."""

    def import_module(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyiqa")

    monkeypatch.setattr(iqa, "import_module", import_module)
    iqa.configuration.cache_clear()
    load_iqa.cache_clear()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server can be reached, and nothing was downloaded before."""

    def refuse(url: str, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"no route to {url}")

    import pyiqa.utils.download_util as download

    monkeypatch.setattr(download, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(download, "download_url_to_file", refuse)
    load_iqa.cache_clear()


def with_metric(options: dict[str, Any], **metric: Any) -> dict[str, Any]:
    """The option file with one metric of pyiqa beside PSNR."""
    psnr = options["val"]["metrics"]["psnr"]
    options["val"]["metrics"] = dict(psnr=psnr, mine=dict(type="calculate_iqa", **metric))
    return options


@with_pyiqa
@pytest.mark.parametrize("name", ["psnr", "psnry", "ssim", "ms_ssim", "gmsd", "vif", "nlpd", "cw_ssim"])
def test_values_are_pyiqas(images, name):
    import pyiqa

    planes = [torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).astype(np.float32)) / 255 for image in images]
    planes = [plane[None].contiguous() for plane in planes]
    expected = pyiqa.create_metric(name, device=torch.device("cpu"))(*planes).item()
    assert math.isfinite(expected)
    # by the same kernels on the same values: to the last bit
    assert calculate_metric(dict(img=images[0], img2=images[1]), dict(type="calculate_iqa", metric=name)) == expected
    inside = [image[4:-4, 4:-4] for image in images]
    assert calculate_iqa(*images, 4, metric=name) == calculate_iqa(*inside, metric=name) != expected
    planar = [image.transpose(2, 0, 1) for image in images]
    assert calculate_iqa(*planar, input_order="CHW", metric=name) == expected


@with_pyiqa
def test_psnr_is_basicsrs(images):
    """pyiqa adds 1e-8 to the mean squared error of values in 0 .. 1 and computes in float32: 1e-3 dB."""
    assert calculate_iqa(*images, metric="psnr") == pytest.approx(calculate_psnr(*images, crop_border=0), abs=1e-3)
    gray = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    assert calculate_iqa(*gray, metric="psnr") == pytest.approx(calculate_psnr(*gray, 0, input_order="HWC"), abs=1e-3)


@with_pyiqa
def test_a_network_is_loaded_once(images):
    assert load_iqa("psnr", "cpu") is load_iqa("psnr", "cpu")
    assert load_iqa("psnr", "cpu") is not load_iqa("psnry", "cpu")


@with_pyiqa
def test_the_direction_and_the_need_of_gt_are_pyiqas():
    metrics = {name: dict(type="calculate_iqa", metric=name) for name in ("psnr", "gmsd", "niqe", "musiq", "lpips")}
    metrics["other"] = dict(type="calculate_psnr", crop_border=0)
    set_directions(metrics)
    assert {name: block.get("better") for name, block in metrics.items()} == dict(
        psnr="higher", gmsd="lower", niqe="lower", musiq="higher", lpips="lower", other=None
    )
    assert [needs_reference(name) for name in ("psnr", "niqe")] == [True, False]


@with_pyiqa
def test_random_numbers_are_its_own(images, monkeypatch):
    class Drawing(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> float:
            return float(torch.rand(1)) + np.random.rand()

    monkeypatch.setattr(iqa, "load_iqa", lambda metric, device: Drawing())
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = calculate_iqa(*images, metric="psnr")
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    torch.manual_seed(5)
    assert calculate_iqa(*images, metric="psnr") == first


@with_pyiqa
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(metric="musik"), "musiq"),
        (dict(metric="fid"), "compares folders"),
        (dict(metric="psnr", img2=None), "a GT image for pyiqa's psnr"),
        (dict(metric="psnr", img2=np.zeros((3, 3, 3), np.uint8)), "two images of one shape"),
        (dict(metric="psnr", input_order="WHC"), "HWC or CHW"),
        (dict(metric="ms_ssim", crop_border=95), "cannot measure an image of 26x10"),
    ],
)
def test_mistakes_are_one_line(images, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        calculate_iqa(**dict(img=images[0], img2=images[1]) | arguments)
    assert "\n" not in str(caught.value)


@with_pyiqa
def test_weights_that_cannot_be_had_are_one_line(offline):
    with pytest.raises(WeightsMissing, match=r"pyiqa's niqe cannot be loaded \(OSError: no route to http") as caught:
        load_iqa("niqe", "cpu")
    assert "\n" not in str(caught.value)


@with_pyiqa
def test_a_pickle_that_runs_code_is_not_loaded(offline, tmp_path, monkeypatch):
    import pyiqa.utils.download_util as download

    class Exploit:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    def download_url_to_file(url: str, file: str, **options: Any) -> None:
        torch.save({"params": Exploit()}, file)

    monkeypatch.setattr(download, "download_url_to_file", download_url_to_file)
    with pytest.raises(WeightsMissing, match="cannot be loaded"):
        load_iqa("cnniqa", "cpu")
    assert not (tmp_path / "ran").exists()


@with_pyiqa
def test_training_keeps_the_best_by_itself(workplace, run_options):
    """gmsd is lower for better images; the option file does not say so."""
    options = with_metric(run_options, metric="gmsd")
    options["val"]["val_freq"], options["logger"] = 1, options["logger"] | dict(keep_newest=1, keep_best="mine")
    options["logger"]["save_checkpoint_freq"] = 1
    assert basicsr("train", options) == 0
    values = [float(line.split()[2]) for line in log_of("experiments/tiny").splitlines() if "# mine:" in line]
    bests = [float(line.split()[4]) for line in log_of("experiments/tiny").splitlines() if "# mine:" in line]
    assert len(values) >= 4 and bests == [min(values[: n + 1]) for n in range(len(values))]


@with_pyiqa
def test_a_test_goes_on_without_weights(workplace, run_options, offline, capsys):
    options = with_metric(run_options, metric="niqe")
    options["datasets"], options["expected"] = dict(test_1=options["datasets"]["val"]), None
    options["expected"] = dict(Set5=dict(mine=dict(value=1.0, tolerance=0.1)))
    assert basicsr("test", options, "--check") == 0
    assert "not checked" in capsys.readouterr().out
    log = log_of("results/tiny")
    assert "# mine: n/a (pyiqa's niqe cannot be loaded" in log and "# psnr:" in log


@with_pyiqa
@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (dict(metric="musik"), "val: metrics: mine: expected calculate_iqa: metric to be a metric of pyiqa"),
        (dict(metric="gmsd", better="higher"), "mine: better: lower, as pyiqa has it for gmsd, got higher"),
        (dict(), "metric in val: metrics: mine:, found none"),
        (dict(metric="gmsd", net="alex"), "unknown key 'net'"),
    ],
)
def test_option_files_are_checked(workplace, run_options, capsys, metric, message):
    assert basicsr("train", with_metric(run_options, **metric)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_without_pyiqa_one_line_says_what_to_do(workplace, run_options, without_pyiqa, capsys):
    assert basicsr("train", with_metric(run_options, metric="musiq")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected the package pyiqa for calculate_iqa, which is not installed; install the extra iqa" in line
    with pytest.raises(InputError, match="not installed"):
        calculate_iqa(np.zeros((8, 8, 3), np.uint8), metric="musiq")


def test_a_pyiqa_that_cannot_be_imported_is_one_line(monkeypatch):
    def import_module(name: str) -> Any:
        raise RuntimeError("something\nis broken")

    monkeypatch.setattr(iqa, "import_module", import_module)
    iqa.configuration.cache_clear()
    with pytest.raises(InputError, match=r"cannot be imported \(RuntimeError: something\)"):
        iqa.configuration("musiq")

"""`basicsr test --check`: verdicts, table, reports, and skipped data sets."""

import json
from collections import OrderedDict
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from bidiffsr_arch.cli import main
from bidiffsr_arch.cli.check import DIFFERS, NOT_CHECKED, OK, absent_datasets, compare, json_report, table
from bidiffsr_arch.config.file import AnyFile, load_options
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.config.training import Expected
from bidiffsr_arch.config.yaml import dump_options
from bidiffsr_arch.data.resize import imresize


def test_verdicts():
    expected = {"A": {"psnr": Expected(value=30.0, tolerance=0.5), "lpips": Expected(value=0.1, tolerance=0.01)}}
    for got, verdict in [(30.5, OK), (29.5, OK), (30.6, DIFFERS), (29.4, DIFFERS), (float("nan"), DIFFERS)]:
        psnr, lpips = compare(expected, {"A": {"psnr": got}}, absent={})
        assert psnr.verdict == verdict
        assert (lpips.verdict, lpips.got, lpips.difference) == (NOT_CHECKED, None, None)
    assert compare(expected, {"A": {"psnr": 29.75}}, {})[0].difference == pytest.approx(-0.25)
    assert "folder does not exist" in compare(expected, {}, absent={"A": "folder"})[0].reason


def test_table():
    rows = compare({"Set5": {"psnr": Expected(value=30.0, tolerance=0.5)}}, {"Set5": {"psnr": 31.0}}, {})
    head, line = table(rows).splitlines()
    assert head.split() == ["data", "set", "metric", "expected", "tolerance", "got", "difference", "verdict"]
    assert line.split() == ["Set5", "psnr", "30.0000", "0.5", "31.0000", "+1.0000", "differs"]


def test_a_data_set_without_one_of_its_folders_is_absent(tmp_path):
    there = str(tmp_path)
    data = dict(A=[there, there], B=[there, "nowhere"], C="nowhere", D=None)
    datasets = {name: dict(name=name, type="T", dataroot_gt=there, dataroot_lq=lq) for name, lq in data.items()}
    file = AnyFile.read(
        dict(name="a", model_type="M", num_gpu=0, datasets=datasets, path={}, val={"x": 1}, network_g={"type": "N"})
    )
    assert absent_datasets(file) == {"B": "nowhere", "C": "nowhere"}


@pytest.fixture
def bicubic_options(tmp_path, monkeypatch) -> OrderedDict:
    """A bicubic test on one data set that exists and one that does not, with correct expected numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIDIFFSR_LPIPS_WEIGHTS", str(tmp_path / "none.pth"))
    rng = np.random.default_rng(0)
    for folder in ("HR", "LR"):
        Path(folder).mkdir()
    hr = cv2.resize(rng.integers(0, 256, (6, 5, 3), np.uint8), (40, 48), interpolation=cv2.INTER_CUBIC)
    lr = imresize(hr, 0.5)
    cv2.imwrite("HR/a.png", hr)
    cv2.imwrite("LR/ax2.png", lr)
    from basicsr.metrics import calculate_psnr

    psnr = float(calculate_psnr(imresize(lr, 2), hr, crop_border=2, test_y_channel=True))
    pairs = dict(type="PairedImageDataset", filename_tmpl="{}x2", io_backend=dict(type="disk"))
    return OrderedDict(
        name="check",
        model_type="BicubicModel",
        scale=2,
        num_gpu=0,
        manual_seed=0,
        datasets=OrderedDict(
            test_1=OrderedDict(name="Here", dataroot_gt="HR", dataroot_lq="LR", **pairs),
            test_2=OrderedDict(name="Away", dataroot_gt="HR", dataroot_lq="nowhere", **pairs),
        ),
        path=OrderedDict(pretrain_network_g=None),
        val=OrderedDict(
            save_img=False,
            suffix=None,
            metrics=OrderedDict(
                psnr=OrderedDict(type="calculate_psnr", crop_border=2, test_y_channel=True),
                lpips=OrderedDict(type="calculate_lpips", crop_border=0, better="lower"),
            ),
        ),
        expected=OrderedDict(
            Here=OrderedDict(psnr=OrderedDict(value=psnr, tolerance=1e-6), lpips=OrderedDict(value=0.5, tolerance=0.1)),
            Away=OrderedDict(psnr=OrderedDict(value=30.0, tolerance=1.0)),
        ),
    )


def check(options: OrderedDict, *arguments: str) -> int:
    Path("check.yml").write_text(dump_options(options))
    return main(["test", "-opt", "check.yml", "--check", *arguments])


def test_correct_numbers_pass_and_absent_data_sets_are_not_checked(bicubic_options, capsys):
    assert check(bicubic_options) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0].startswith("Here") and lines[0].endswith("  ok")
    assert "not checked" in lines[1] and "lpips" in lines[1]
    assert lines[2].endswith("not checked (nowhere does not exist)")


def test_strict_fails_for_unchecked_numbers(bicubic_options, capsys):
    assert check(bicubic_options, "--strict") == 1
    assert "2 of 3 expected numbers failed" in capsys.readouterr().err
    del bicubic_options["expected"]["Away"], bicubic_options["expected"]["Here"]["lpips"]
    assert check(bicubic_options, "--strict") == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wrong_number_fails(bicubic_options, capsys, sign):
    bicubic_options["expected"]["Here"]["psnr"]["value"] += sign * 1e-3
    assert check(bicubic_options) == 1
    captured = capsys.readouterr()
    assert "Here psnr differs" in captured.err
    assert captured.out.splitlines()[-3].endswith("differs")


def test_without_data_sets_nothing_is_tested(bicubic_options, capsys):
    del bicubic_options["datasets"]["test_1"], bicubic_options["expected"]["Here"]
    assert check(bicubic_options) == 0
    assert not Path("results").exists()
    assert check(bicubic_options, "--strict") == 1


def test_json_report(bicubic_options):
    bicubic_options["expected"]["Here"]["psnr"]["value"] += 1
    assert check(bicubic_options, "--report", "out/report.json") == 1
    report = json.loads(Path("out/report.json").read_text())
    assert report["passed"] is False
    psnr, lpips, away = report["rows"]
    assert (psnr["dataset"], psnr["metric"], psnr["verdict"], psnr["failed"]) == ("Here", "psnr", "differs", True)
    assert psnr["difference"] == pytest.approx(-1, abs=1e-6)
    assert (lpips["got"], lpips["difference"], lpips["failed"]) == (None, None, False)
    assert away["reason"] == "nowhere does not exist"


@pytest.mark.parametrize(("strict", "failures", "skipped"), [([], 1, 2), (["--strict"], 3, 0)])
def test_junit_report(bicubic_options, strict, failures, skipped):
    bicubic_options["expected"]["Here"]["psnr"]["value"] += 1
    assert check(bicubic_options, "--report", "report.xml", *strict) == 1
    suite = ElementTree.parse("report.xml").getroot()
    assert suite.tag == "testsuite"
    counts = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == dict(tests=3, failures=failures, errors=0, skipped=skipped)
    assert len(suite.findall("testcase/failure")) == failures
    assert len(suite.findall("testcase/skipped")) == skipped
    assert suite.find("testcase").attrib == {"classname": "Here", "name": "psnr"}


def drop_expected(options):
    del options["expected"]


def rename_dataset(options):
    options["expected"]["Her"] = options["expected"].pop("Here")


def rename_metric(options):
    options["expected"]["Here"]["psn"] = options["expected"]["Here"].pop("psnr")


def drop_tolerance(options):
    del options["expected"]["Here"]["psnr"]["tolerance"]


def text_for_value(options):
    options["expected"]["Here"]["psnr"]["value"] = "30 dB"


def number_for_metrics(options):
    options["expected"]["Here"] = 30


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_expected, "expected an `expected:` block"),
        (rename_dataset, "`expected: Her:` is not a data set of the file; its data sets are Here, Away"),
        (rename_metric, "`expected: Here: psn:` is not a metric of the file; its metrics are psnr, lpips"),
        (drop_tolerance, "expected the key `tolerance:` in `expected: Here: psnr:`"),
        (text_for_value, "expected `expected: Here: psnr: value` to be a number, got '30 dB'"),
        (number_for_metrics, "expected `expected: Here:` to hold keys of its own, got 30"),
    ],
)
def test_a_wrong_expected_block_is_refused(bicubic_options, capsys, damage, said):
    damage(bicubic_options)
    assert check(bicubic_options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("results").exists()


def test_an_unknown_report_format_is_refused_before_the_test(bicubic_options, capsys):
    assert check(bicubic_options, "--report", "report.txt") == 2
    assert ".json or .xml" in capsys.readouterr().err
    assert not Path("results").exists()


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_on_set5(benchmark_root, scale, tmp_path, monkeypatch, capsys):
    """The shipped file's numbers (MATLAB's protocol) hold; `make bench-check` tests the hundred images of B100."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIDIFFSR_BENCHMARK_ROOT", str(benchmark_root))
    options = load_options(shipped_path(f"test_Bicubic_x{scale}"))
    options["datasets"] = OrderedDict(test_1=options["datasets"]["test_1"])
    options["expected"] = OrderedDict(Set5=options["expected"]["Set5"])
    options["val"]["save_img"] = False
    assert check(options) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[:2] for line in lines] == [["Set5", "psnr"], ["Set5", "ssim"], ["Set5", "lpips"]]
    assert all(line.endswith("  ok") for line in lines[:2])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_the_comparison_allows_for_rounding_in_every_float_type(kind):
    expected = {"A": {"psnr": Expected(value=30.0, tolerance=0.1)}}
    for got, verdict in [(30.1, OK), (29.9, OK), (30.1001, DIFFERS), (float("nan"), DIFFERS), (float("inf"), DIFFERS)]:
        (row,) = compare(expected, {"A": {"psnr": kind(got)}}, absent={})
        assert row.verdict == verdict and type(row.got) is float, (kind, got)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_report_has_null_for_numbers_that_are_not_finite(value):
    rows = compare({"A": {"psnr": Expected(value=30.0, tolerance=0.1)}}, {"A": {"psnr": value}}, absent={})
    report = json.loads(json_report(rows, rows), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (entry,) = report["rows"]
    assert (entry["got"], entry["difference"], entry["reason"]) == (None, None, f"got {value}")

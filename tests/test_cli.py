"""The command: arguments passed to BasicSR, exit status, and small subcommands."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from torch.utils.data import DataLoader, Dataset

from bidiffsr_arch import cli
from bidiffsr_arch.cli import demo, main
from bidiffsr_arch.compat.options import handed
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped, shipped_path
from bidiffsr_arch.errors import CheckFailed, InputError
from bidiffsr_arch.threads import USERS_CHOICE


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIDIFFSR_BENCHMARK_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def given(monkeypatch) -> list[argparse.Namespace]:
    """Replace BasicSR's pipelines by functions that only record folder, arguments and options."""
    import basicsr.test
    import basicsr.train

    calls = []

    def note(root: str) -> None:
        args, options = handed()
        calls.append(argparse.Namespace(root=root, args=args, options=options))

    monkeypatch.setattr(basicsr.train, "train_pipeline", note)
    monkeypatch.setattr(basicsr.test, "test_pipeline", note)
    return calls


@pytest.fixture
def raising(monkeypatch):
    """Make `basicsr doctor` raise an error that the test chooses."""

    def choose(error: BaseException) -> None:
        def run(args: argparse.Namespace) -> None:
            raise error

        monkeypatch.setattr("bidiffsr_arch.cli.doctor.run", run)

    return choose


def test_every_command_has_help_with_an_example(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        assert f"example: basicsr {name}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("argv", [[], ["nothing"], ["train"], ["options", "--nothing"], ["data"]])
def test_wrong_arguments_are_status_2_and_one_line(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("basicsr") and said.endswith("--help\n") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("expected a, got b; do c"), 2, "basicsr: expected a, got b; do c"),
        (CheckFailed("too low"), 1, "basicsr: too low"),
        (FileNotFoundError(2, "No such file or directory", "there"), 2, "No such file or directory: 'there'"),
        (KeyboardInterrupt(), 130, "basicsr: stopped"),
    ],
)
def test_status_and_one_line(raising, capsys, error, status, line):
    raising(error)
    assert main(["doctor"]) == status
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_an_internal_error_shows_its_traceback(raising):
    raising(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


class Broken(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        raise InputError("expected an image, got x.png: broken; replace it")


def test_error_of_a_loader_worker_is_one_line(raising, capsys):
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert "Original Traceback" in str(caught.value)  # as torch passes it on
    raising(caught.value)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "basicsr: expected an image, got x.png: broken; replace it\n"


def test_train_passes_its_arguments_to_basicsr(given, empty_folder):
    file = str(shipped_path("train_BIDiffSR_x4"))
    assert main(["train", "-opt", file, "--auto_resume", "--debug", "--force_yml", "scale=4", "val:pbar=true"]) == 0
    (call,) = given
    assert call.root == str(empty_folder)
    assert (call.args.opt, call.args.auto_resume, call.args.debug) == (file, True, True)
    assert call.args.force_yml == ["scale=4", "val:pbar=true"]
    assert call.options == load_options(file, ["scale=4", "val:pbar=true"])


@pytest.mark.parametrize("spelling", [["--local-rank", "3"], ["--local-rank=3"], ["--local_rank=3"]])
def test_both_spellings_of_the_local_rank(given, spelling):
    assert main(["train", "-opt", str(shipped_path("train_BIDiffSR_x4")), "--launcher", "pytorch", *spelling]) == 0
    assert (given[0].args.launcher, given[0].args.local_rank) == ("pytorch", 3)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train", "-opt", "none.yml"], "none.yml does not exist"),
        (["train", "-opt", "{test_BIDiffSR_x4}"], "`train:`, `logger:`, `datasets: train:`"),
        (["train", "-opt", "{train_BIDiffSR_x4}", "--force_yml", "trian:total_iter=3"], "there is no 'trian'"),
        (["test", "-opt", "{test_BIDiffSR_x4}", "--strict"], "go with --check"),
        (["test", "-opt", "{test_BIDiffSR_x4}", "--report", "a.json"], "go with --check"),
        (["test", "-opt", "{test_BIDiffSR_x4}", "--check", "--launcher", "pytorch"], "in one process"),
        (["test", "-opt", "{test_BIDiffSR_x4}", "--force_yml", "val=~", "train={a: 1}"], "expected a `val:` block"),
        (["options", "-o", "mine.yml"], "expected the NAME"),
        (["options", "train_BIDifSR_x4"], "did you mean train_BIDiffSR_x4?"),
    ],
)
def test_wrong_input_is_refused_before_basicsr_starts(given, capsys, argv, said):
    names = {name: str(shipped_path(name)) for name in ("train_BIDiffSR_x4", "test_BIDiffSR_x4")}
    argv = [names.get(word.strip("{}"), word) for word in argv]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not given


def test_a_training_file_tests_its_latest_network(given):
    assert main(["test", "-opt", str(shipped_path("ablation/pairs_2")), "--force_yml", "num_gpu=0"]) == 0
    options = given[0].options
    assert list(options["datasets"]) == ["val"]
    assert options["path"]["pretrain_network_g"] == "experiments/table1_pairs_2/models/net_g_latest.pth"
    assert options["num_gpu"] == 0
    assert options["val"]["suffix"] is None


def test_a_training_files_own_checkpoint_and_root(given):
    argv = ["test", "-opt", str(shipped_path("train_BIDiffSR_x2")), "--force_yml"]
    assert main([*argv, "path:pretrain_network_g=mine.pth"]) == 0
    assert main([*argv, "path:experiments_root=runs/a"]) == 0
    paths = [call.options["path"]["pretrain_network_g"] for call in given]
    assert paths == ["mine.pth", "runs/a/models/net_g_latest.pth"]


def test_options_are_listed_with_their_first_line(capsys):
    assert main(["options"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_flat_options_keep_their_comments(capsys):
    assert main(["options", "train_BIDiffSR_x4"]) == 0
    assert capsys.readouterr().out == shipped_path("train_BIDiffSR_x4").read_text()


def test_options_are_written_completely_and_replace_no_file(empty_folder, capsys):
    assert main(["options", "test_BBCU_x4", "-o", "sub/mine.yml"]) == 0
    mine = Path("sub/mine.yml")
    text = mine.read_text()
    assert "base:" not in text
    assert text.startswith("# BBCU")
    assert yaml.safe_load(text) == load_options(shipped_path("test_BBCU_x4"))
    assert load_options(mine) == load_options(shipped_path("test_BBCU_x4"))

    mine.write_text("mine")
    assert main(["options", "test_BBCU_x4", "-o", "sub/mine.yml"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert main(["options", "test_BBCU_x4", "-o", "sub/mine.yml", "--overwrite"]) == 0
    assert mine.read_text() == text
    assert os.listdir("sub") == ["mine.yml"]


def test_data_demo(empty_folder, capsys):
    assert main(["data", "demo", "-o", "photographs"]) == 0
    assert capsys.readouterr().out == "photographs in photographs\n"
    assert Path("photographs/val/HR").is_dir()


def test_data_lpips_weights(monkeypatch, capsys):
    fetch = "bidiffsr_arch.metrics.lpips_weights.fetch"
    monkeypatch.setattr(fetch, lambda destination: destination or "cache/alex.pth")
    assert main(["data", "lpips-weights"]) == 0
    assert main(["data", "lpips-weights", "-o", "mine.pth"]) == 0
    assert capsys.readouterr().out == "weights in cache/alex.pth\nweights in mine.pth\n"


def test_doctor(capsys, monkeypatch):
    monkeypatch.setenv("BIDIFFSR_LPIPS_WEIGHTS", "/no/such/file")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for heading in ("versions:", "device:", "threads:", "patches of BasicSR and torchvision:", "registered:", "LPIPS:"):
        assert f"{heading}\n" in shown
    assert "BIDiffSRUNet" in shown and "SR3UNet" in shown
    assert "no such file" in shown
    assert re.search(r"^  torch +\d+\.", shown, re.MULTILINE)
    assert re.search(r"^  command_line +\S", shown, re.MULTILINE)
    ours, users = "GOMP_SPINCOUNT=3000, set by bidiffsr_arch", f"({'|'.join(USERS_CHOICE)})=.*, from the environment"
    assert re.search(f"^  torch +({ours}|{users})$", shown, re.MULTILINE)


def test_the_module_is_the_command(empty_folder):
    """As launchers start it; a closed output pipe, as of `head`, is no error."""
    command = f"{sys.executable} -m bidiffsr_arch.cli options"
    end = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, timeout=120)
    assert end.stdout.startswith("ablation/")
    assert end.stderr == ""


@pytest.fixture
def demo_run(monkeypatch, empty_folder):
    """A demo whose training saves, for each validation image, the result of a function of (HR, LR)."""

    def run(result) -> int:
        def train(args: argparse.Namespace) -> None:
            options = load_options(args.opt, args.force_yml)
            assert options["name"] == demo.OPTION_FILE
            for hr_path in Path("datasets/demo/val/HR").iterdir():
                lr_name = f"{hr_path.stem}x4"
                hr, lr = (cv2.imread(str(p)) for p in (hr_path, f"datasets/demo/val/LR_bicubic/X4/{lr_name}.png"))
                folder = Path("experiments", options["name"], "visualization", lr_name)
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{lr_name}_9.png"), result(hr, lr))

        monkeypatch.setattr("bidiffsr_arch.cli.train.run", train)
        return main(["demo"])

    return run


def bicubic(hr: np.ndarray, lr: np.ndarray) -> np.ndarray:
    return cv2.resize(lr, hr.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def test_demo_ends_with_one_line_and_a_strip(demo_run, capsys):
    assert demo_run(bicubic) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    folder = "experiments/demo_BIDiffSR_x4/visualization"
    first, second = (
        last.removeprefix("demo: PSNR ").removesuffix(f" dB, images in {folder}").split(" dB, bicubic (cv2) ")
    )
    assert first == second
    strip = cv2.imread(f"{folder}/strip.png")
    assert strip.shape[1] > 4 * 600  # four images side by side, the widest of 600 pixels


def test_demo_fails_below_bicubic(demo_run, capsys):
    assert demo_run(lambda hr, lr: cv2.GaussianBlur(bicubic(hr, lr), (0, 0), 3)) == 1
    assert "expected at least bicubic's" in capsys.readouterr().err


def test_demo_measures_as_validation_does(demo_run, capsys):
    from basicsr.metrics import calculate_psnr

    assert demo_run(bicubic) == 0
    scores = []
    for hr_path in Path("datasets/demo/val/HR").iterdir():
        hr, lr = (cv2.imread(str(p)) for p in (hr_path, f"datasets/demo/val/LR_bicubic/X4/{hr_path.stem}x4.png"))
        scores.append(calculate_psnr(bicubic(hr, lr), hr, crop_border=4, test_y_channel=True))
    assert f"bicubic (cv2) {np.mean(scores):.2f} dB" in capsys.readouterr().out


def test_demo_takes_overrides(monkeypatch, empty_folder):
    seen = []

    def train(args: argparse.Namespace) -> None:
        seen.append(args.force_yml)
        raise CheckFailed("far enough")

    monkeypatch.setattr("bidiffsr_arch.cli.train.run", train)
    assert main(["demo", "--force_yml", "train:total_iter=3"]) == 1
    assert seen == [["train:total_iter=3"]]

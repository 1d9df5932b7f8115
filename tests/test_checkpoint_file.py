"""Checkpoints are written atomically, and training reports why one cannot be written."""

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from child import OF_BASICSR, run_code
from small_run import basicsr

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import UNFINISHED, digest
from bidiffsr_arch.training.checkpoint_file import save_checkpoint

WITH_LITTLE_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from bidiffsr_arch.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_file_is_flushed_to_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *args: (steps.append("fsync"), fsync(*args)))
    monkeypatch.setattr(os, "replace", lambda *args: (steps.append("replace"), replace(*args)))
    written = save_checkpoint({"a": torch.arange(3)}, tmp_path / "new" / "net.pth")
    assert steps == ["fsync", "replace", "fsync"], "the file, its name, its folder"
    assert digest(tmp_path / "new" / "net.pth") == written
    assert torch.load(tmp_path / "new" / "net.pth", weights_only=True)["a"].tolist() == [0, 1, 2]
    assert not UNFINISHED.endswith((".pth", ".state"))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file(tmp_path, monkeypatch, moment):
    file = tmp_path / "net.pth"
    save_checkpoint({"a": 1}, file)
    before = file.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, moment, full)
    with pytest.raises(InputError, match=r"net\.pth cannot be written \(No space left on device\); the last good"):
        save_checkpoint({"a": 2}, file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_a_disk_that_is_really_full_leaves_the_old_file(small_disk):
    file = small_disk / "net.pth"
    save_checkpoint({"a": torch.zeros(4)}, file)
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"net\.pth cannot be written \(No space left on device\); the last good"):
        save_checkpoint({"a": torch.zeros(2**16)}, file)
    assert file.read_bytes() == before
    assert [path.name for path in small_disk.iterdir()] == ["net.pth"]


def test_the_message_names_a_folder_that_is_not_writable(tmp_path):
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"models/net\.pth cannot be written \((File exists|Not a directory)\)"):
        save_checkpoint({}, tmp_path / "models" / "net.pth")


def test_a_full_disk_ends_training_and_keeps_the_last_checkpoint(workplace, run_options):
    options = run_options
    options["val"] = None
    del options["datasets"]["val"]
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    models = Path("experiments/tiny/models")
    size = (models / "net_g_2.pth").stat().st_size
    Path("options.yml").write_text(yaml.safe_dump(options))
    words = ("train", "-opt", "options.yml", "--auto_resume")
    ran = run_code(WITH_LITTLE_DISK, size // 2, *words, imported=OF_BASICSR)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr, ran.stderr[-2000:]
    assert re.search(r"^basicsr: .*net_g_4\.pth cannot be written \(File too large\)", ran.stderr, re.M)
    assert not (models / "net_g_4.pth").exists() and not list(models.glob(f"{UNFINISHED}*"))
    assert basicsr("train", options, "--auto_resume") == 0
    assert (models / "net_g_4.pth").exists()


@pytest.fixture
def on_a_small_disk(workplace, run_options, small_disk) -> dict[str, Any]:
    """Options of a run on a file system that is soon full; nothing is validated."""
    run_options["path"] |= dict(experiments_root=str(small_disk / "run"), results_root=str(small_disk / "results"))
    run_options["val"]["metrics"] = {"psnr": run_options["val"]["metrics"]["psnr"]}
    return run_options


def fill(folder: Path, left: int) -> None:
    """Leave that many bytes of a file system."""
    (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - left))


def test_training_on_a_disk_that_is_really_full_ends_in_one_line(on_a_small_disk, small_disk, capsys):
    """The log does not fit, which is a warning; a checkpoint does not fit, which ends the run."""
    fill(small_disk, 16 << 10)
    on_a_small_disk["val"] = None
    del on_a_small_disk["datasets"]["val"]
    assert basicsr("train", on_a_small_disk) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "Logging error" not in said
    assert said.count("warning: ") == 1 and ".log cannot be written (No space left on device)" in said
    assert re.search(r"^basicsr: .*net_g_2\.pth cannot be written \(No space left on device\)", said, re.M)
    assert not list(small_disk.rglob("*.pth")) and not list(small_disk.rglob(f"{UNFINISHED}*"))


@pytest.mark.parametrize("model", ["BIDiffSRModel", "SRModel"])
def test_an_image_that_does_not_fit_is_named_and_not_half_there(on_a_small_disk, small_disk, capsys, model):
    options = on_a_small_disk
    options["datasets"] = {"test_1": options["datasets"]["val"]}
    if model == "SRModel":
        options |= dict(model_type=model, network_g=dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2))
        del options["beta_schedule"]
    fill(small_disk, 8 << 10)
    assert basicsr("test", options) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(r"^basicsr: cannot write the image .*\.png: No space left on device", said, re.M)
    assert all(cv2.imread(str(image)) is not None for image in small_disk.rglob("*.png"))


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path) as records:
        largest = records.read(max(records.infolist(), key=lambda record: record.file_size))
    middle = content.index(largest) + len(largest) // 2
    path.write_bytes({
        "cut": content[:middle],
        "empty": b"",
        "one byte flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": b"not a checkpoint",
    }[kind])  # fmt: skip


@pytest.mark.parametrize("kind", ["cut", "empty", "one byte flipped", "text"])
@pytest.mark.parametrize("file", ["models/net_g_4.pth", "training_states/4.state"])
def test_auto_resume_skips_damaged_files(finished, capsys, kind, file):
    damage(Path("experiments/tiny", file), kind)
    assert basicsr("train", finished, "--auto_resume") == 0
    said = capsys.readouterr()
    assert "not resuming: " in said.out and "Resuming training from epoch: 0, iter: 2." in said.err


def test_auto_resume_reports_that_no_state_is_left(finished, capsys):
    for state in Path("experiments/tiny/training_states").iterdir():
        damage(state, "cut")
    assert basicsr("train", finished, "--auto_resume") == 0
    assert capsys.readouterr().out.count("not resuming: ") == 2
    assert len(list(Path("experiments").glob("tiny_archived_*"))) == 1


@pytest.fixture
def finished(workplace, run_options, train_once):
    """Options of a finished run with states after 2 and 4 iterations."""
    run_options["val"] = None
    del run_options["datasets"]["val"]
    train_once(run_options)
    return run_options

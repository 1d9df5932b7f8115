"""Every command except those of training works without BasicSR, and imports only what it needs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from child import run_code

from bidiffsr_arch import cli
from bidiffsr_arch.archs import BIDiffSRUNet

# The rest of the program: a command, and which of some modules it has imported.
COMMAND = """
from bidiffsr_arch.cli import main
sys.argv[0] = "basicsr"
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
present = [name for name in sorted({modules!r}) if name in sys.modules]
print(*present, sep=" ", file=sys.stderr)
sys.exit(status)
"""
NOT_FOR_INFERENCE = ("basicsr", "torchvision", "scipy", "lpips", "torch._dynamo")


def run_command(*words: object, modules: tuple[str, ...] = (), **where: Any) -> subprocess.CompletedProcess[str]:
    """Run a command where BasicSR is not installed; the last line on stderr names those of `modules` it imported."""
    return run_code(COMMAND.format(modules=modules), *words, blocked=("basicsr",), **where)


@pytest.fixture
def photographs(workplace: Path) -> Path:
    """A folder with a photograph of 48x48 pixels, and the tiny network that was trained for it."""
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
    cv2.imwrite("photos/a.png", cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC))
    return workplace


@pytest.fixture
def checkpoint(photographs: Path, tiny_options: dict, run_options: dict) -> Path:
    """Weights of the tiny network, with the option file that it was trained with beside it."""
    network = BIDiffSRUNet(**tiny_options)
    torch.save({"params_ema": network.state_dict()}, "net.pth")
    Path("net.yml").write_text(yaml.safe_dump(run_options), encoding="utf-8")
    return photographs


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("upscale photos -o large --quiet", "large/a.png"),
        ("upscale photos -o large --weights net.pth --steps 1 --quiet", "large/a.png"),
        ("pack net.pth -opt net.yml -o packed.safetensors", "packed.safetensors"),
        ("plot strip photos --weights net.pth --steps 1 --crop 24 -o strip.png", "strip.png"),
        ("plot biases --weights net.pth -o biases.png", "biases.png"),
        ("options train_BIDiffSR_x4 -o mine.yml", "mine.yml"),
        ("data pairs photos --scale 2 --workers 1 -o pairs", "pairs/HR/a.png"),
        ("data demo -o demo", "demo/train/HR/astronaut.png"),
        ("data subimages --hr data/HR --lr data/LR --scale 2 --size 16 --step 8 --workers 1 -o sub", "sub"),
        ("data lmdb data/HR -o hr.lmdb", "hr.lmdb"),
    ],
)
def test_commands_that_write_files(checkpoint, words, written):
    done = run_command(*words.split(), modules=NOT_FOR_INFERENCE, folder=checkpoint, imported=("torch",))
    assert done.returncode == 0, done.stderr
    assert Path(written).exists()
    assert not done.stderr.splitlines()[-1].strip() or words.startswith("plot"), done.stderr


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("options", "train_BIDiffSR_x4"),
        ("cost -opt net.yml --input-size 32 32", "tiny"),
        ("doctor", "which is not installed"),
        ("bench --size 8 --rounds 1 --no-memory --backend torch", "packed"),
    ],
)
def test_commands_that_print(checkpoint, words, shown):
    done = run_command(*words.split(), folder=checkpoint, imported=("torch",))
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.parametrize("words", ["train -opt train_BIDiffSR_x4.yml", "test -opt test_Bicubic_x4.yml", "demo"])
def test_the_message_for_training_says_what_to_install(tmp_path, words):
    done = run_command(*words.split(), folder=tmp_path)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line]
    assert len(said) == 1 and said[0].startswith(f"basicsr: `basicsr {words.split()[0]}` needs BasicSR"), done.stderr
    assert "python -m bidiffsr_arch.compat.install" in said[0]
    assert not any(tmp_path.iterdir()), "nothing is written before"


def test_inference_imports_one_scheduler_of_diffusers(photographs):
    code = "import re; loaded = [name for name in sys.modules if re.match(r'diffusers.schedulers.scheduling_', name)]"
    command = COMMAND.replace("present =", f"{code}\nprint(*loaded)\npresent =").format(modules=())
    words = ("upscale", "photos", "-o", "large", "--quiet")
    done = run_code(command, *words, blocked=("basicsr",), folder=photographs, imported=("torch",))
    loaded = sorted(done.stdout.split())
    assert loaded == ["diffusers.schedulers.scheduling_ddim", "diffusers.schedulers.scheduling_utils"]


def test_another_packages_network_is_refused_in_one_line(checkpoint):
    Path("net.yml").write_text(Path("net.yml").read_text().replace("BIDiffSRUNet", "RRDBNet"))
    done = run_command("cost", "-opt", "net.yml", folder=checkpoint, imported=("torch",))
    assert done.returncode == 2
    assert "BIDiffSRUNet" in done.stderr and "RRDBNet" in done.stderr
    assert "for others: python -m bidiffsr_arch.compat.install (docs/install.md)" in done.stderr


HEAVY = ("torch", "numpy", "cv2", "PIL", "yaml", "tqdm", "basicsr", "diffusers", "numba", "safetensors", "pydantic")


@pytest.mark.parametrize(
    "words",
    ["--help", "--version", "nothing", *(f"{name} --help" for name in cli.COMMANDS), "upscale", "data pairs --help"],
)
def test_help_and_wrong_arguments_take_less_than_a_second(words):
    """At most 0.3 s of the processor, for which nothing heavy can be imported."""
    done = run_command(*words.split(), modules=HEAVY)
    assert done.returncode in (0, 2)
    assert not done.stderr.splitlines()[-1].strip(), done.stderr


def test_help_takes_less_than_three_tenths_of_a_second():
    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "bidiffsr_arch.cli", "upscale", "--help"], stdout=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.3


def test_messages_have_the_name_that_was_called(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bidiffsr"])
    with pytest.raises(SystemExit):
        cli.main(["nothing"])
    assert capsys.readouterr().err.startswith("bidiffsr: ")

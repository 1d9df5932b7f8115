"""BasicSR's own trainer, model and data loader on a CPU, with nothing of this package but the cures."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.train import train_pipeline

OPTIONS = """\
name: run
model_type: SRModel
scale: 2
num_gpu: auto
manual_seed: 0
datasets:
  train: &pictures
    name: pictures
    type: PairedImageDataset
    dataroot_gt: HR
    dataroot_lq: LR
    io_backend: {type: disk}
    gt_size: 16
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 1
    prefetch_mode: cpu
  val: {<<: *pictures, prefetch_mode: ~}
network_g: {type: SRVGGNetCompact, num_feat: 4, num_conv: 1, upscale: 2}
path: {experiments_root: elsewhere/run, unknown: weights.pth}
train:
  ema_decay: 0.9
  optim_g: {type: Adam, lr: 1e-3}
  scheduler: {type: MultiStepLR, milestones: [100], gamma: 0.5}
  total_iter: 2
  pixel_opt: {type: L1Loss, loss_weight: 1, reduction: mean}
val:
  val_freq: 1e9
  save_img: true
  metrics: {psnr: {type: calculate_psnr, crop_border: 2}}
logger: {print_freq: 1, save_checkpoint_freq: 2, use_tb_logger: false}
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    random = np.random.default_rng(0)
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    for number in range(2):
        picture = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "HR" / f"{number}.png"), picture)
        cv2.imwrite(str(tmp_path / "LR" / f"{number}.png"), picture[::2, ::2])
    (tmp_path / "run.yml").write_text(OPTIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["basicsr", *arguments])
    train_pipeline(os.getcwd())


def test_training_stops_and_resumes_in_its_own_root(workplace, monkeypatch):
    root = workplace / "elsewhere" / "run"
    run(monkeypatch, "-opt", "run.yml")
    assert torch.load(root / "training_states" / "2.state")["iter"] == 2
    assert (root / "visualization" / "1").is_dir()

    # going on with the experiment's own copy of the options, as a user would who has lost the first one
    run(monkeypatch, "-opt", str(root / "run.yml"), "--auto_resume", "--force_yml", "train:total_iter=4")
    state = torch.load(root / "training_states" / "4.state")
    assert {int(entry["step"]) for entry in state["optimizers"][0]["state"].values()} == {4}
    assert not list(workplace.glob("elsewhere/run_archived*")), "a resumed run keeps its folder"
    assert yaml.safe_load((root / "run.yml").read_text())["train"]["total_iter"] == 4
    assert not (workplace / "weights.pth").exists() and not (workplace / "experiments").exists()

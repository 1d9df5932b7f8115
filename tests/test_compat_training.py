"""BasicSR's trainer, models and data loader on a CPU, with only the patches of this package."""

import os
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.models.sr_model import SRModel
from basicsr.train import train_pipeline
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from test_resume import assert_same_end

from bidiffsr_arch.cli.doctor import not_resumed_exactly
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.random_states import own_random_state
from bidiffsr_arch.training.resume import read_state

OPTIONS = """\
name: run
model_type: SRModel
scale: 2
num_gpu: auto
manual_seed: 0
datasets:
  train: &images
    name: images
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
  val: {<<: *images, prefetch_mode: ~}
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
    generator = np.random.default_rng(0)
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    for number in range(2):
        image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "HR" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "LR" / f"{number}.png"), image[::2, ::2])
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

    # resume with the experiment's copy of the options, as a user who has lost the original
    run(monkeypatch, "-opt", str(root / "run.yml"), "--auto_resume", "--force_yml", "train:total_iter=4")
    state = torch.load(root / "training_states" / "4.state")
    assert {int(entry["step"]) for entry in state["optimizers"][0]["state"].values()} == {4}
    assert not list(workplace.glob("elsewhere/run_archived*")), "a resumed run keeps its folder"
    assert yaml.safe_load((root / "run.yml").read_text())["train"]["total_iter"] == 4
    assert not (workplace / "weights.pth").exists() and not (workplace / "experiments").exists()


class DroppingModel(SRModel):
    """A plugin's model, which uses all random generators."""

    def feed_data(self, data):
        super().feed_data(data)
        if self.is_train:
            self.lq = torch.nn.functional.dropout(self.lq, random.random() / 9) + np.random.rand() / 9


@pytest.fixture(autouse=True)
def plugin():
    MODEL_REGISTRY.register(DroppingModel)
    yield
    del MODEL_REGISTRY._obj_map["DroppingModel"]


EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
GAN = {
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4},
    "path": {"pretrain_network_d": None},
    "train": {
        "optim_d": {"type": "Adam", "lr": 1e-3},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0,
                    "loss_weight": 0.1},
    },
}  # fmt: skip


def merged(options: dict, changes: dict) -> dict:
    return options | {
        key: merged(options[key], value) if isinstance(value, dict) and isinstance(options.get(key), dict) else value
        for key, value in changes.items()
    }


def written(name: str, changes: dict) -> list[str]:
    """Arguments for an option file of that experiment: an epoch has three iterations of two samples."""
    options = yaml.safe_load(OPTIONS)
    options["train"]["optim_g"]["lr"] = 1e-3
    options["datasets"]["train"] |= {"dataset_enlarge_ratio": 3, "batch_size_per_gpu": 2, "prefetch_mode": None}
    options["network_g"], options["val"], options["path"] = EDSR, None, {}
    del options["datasets"]["val"]
    options["logger"]["save_checkpoint_freq"] = 1
    Path(f"{name}.yml").write_text(yaml.safe_dump(merged(options, changes | {"name": name})))
    return ["-opt", f"{name}.yml"]


@pytest.mark.parametrize(
    ("model", "changes"),
    [("SRModel", {}), ("SRGANModel", GAN), ("DroppingModel", {"datasets": {"train": {"num_worker_per_gpu": 1}}})],
)
def test_every_model_is_resumed_at_its_sample(workplace, monkeypatch, model, changes):
    changes = merged({"model_type": model, "train": {"total_iter": 5}}, changes)
    run(monkeypatch, *written("whole", changes))
    run(monkeypatch, *written("stopped", merged(changes, {"train": {"total_iter": 2}})))
    run(monkeypatch, *written("stopped", changes), "--auto_resume")
    assert_same_end("whole", "stopped", 5)
    state = torch.load("experiments/stopped/training_states/5.state", weights_only=True)
    assert (state["epoch"], state["position"]) == (1, 4)


def test_changed_options_are_used_from_the_resumed_state_on_and_logged(workplace, monkeypatch, caplog):
    """A new learning rate and new milestones give the rates of a run with these from the beginning."""
    new = {"train": {"optim_g": {"lr": 4e-3, "betas": [0.8, 0.9]}, "scheduler": {"milestones": [1, 3], "gamma": 0.5},
                     "total_iter": 4, "warmup_iter": 2}}  # fmt: skip
    run(monkeypatch, *written("fresh", new))
    run(monkeypatch, *written("old", {"train": {"total_iter": 2}}))
    before = torch.load("experiments/old/training_states/2.state", weights_only=True)["optimizers"][0]["state"]
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    caplog.set_level("INFO", logger=get_root_logger().name)
    run(monkeypatch, *written("old", new | {"datasets": {"train": {"batch_size_per_gpu": 1}}}), "--auto_resume")
    files = (Path("experiments", name, "training_states/4.state") for name in ("fresh", "old"))
    fresh, old = (torch.load(file, weights_only=True) for file in files)
    for name in ("lr", "initial_lr", "betas"):
        assert old["optimizers"][0]["param_groups"][0][name] == fresh["optimizers"][0]["param_groups"][0][name]
    assert old["schedulers"][0]["milestones"] == fresh["schedulers"][0]["milestones"]
    assert int(old["optimizers"][0]["state"][0]["step"]) == int(before[0]["step"]) + 2, "moments went on"
    assert old["position"] == 2 * 2 + 2 * 1
    for line in ("train: optim_g: lr: 0.001 -> 0.004", "train: scheduler: milestones: [100] -> [1, 3]",
                 "datasets: train: batch_size_per_gpu: 2 -> 1", "train: warmup_iter: left out -> 2"):  # fmt: skip
        assert f"resumed with another {line}" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_g": {"num_feat": 8}}, "expected network_g: num_feat: 4, as .*2.state was trained with, got 8; rest"),
        ({"network_g": {"res_scale": 0.5}}, "expected network_g: res_scale: 1, as .* got 0.5"),  # a default until now
        ({"train": {"optim_g": {"type": "SGD"}}}, "expected train: optim_g: type: Adam, as .* got SGD"),
    ],
)  # fmt: skip
def test_another_network_is_one_line(workplace, monkeypatch, changes, message):
    run(monkeypatch, *written("run", {"train": {"total_iter": 2}}))
    with pytest.raises(InputError, match=message):
        run(monkeypatch, *written("run", changes), "--auto_resume")
    run(monkeypatch, *written("run", {"network_g": {"res_scale": 1}, "train": {"total_iter": 3}}), "--auto_resume")


def test_the_state_of_another_program_is_one_line(workplace, monkeypatch):
    run(monkeypatch, *written("run", {"train": {"total_iter": 2}}))
    file = Path("experiments/run/training_states/2.state")
    state = torch.load(file, weights_only=True)
    stock = {key: state[key] for key in ("epoch", "iter", "optimizers", "schedulers")}
    optimizer = stock["optimizers"][0]
    for damage in (optimizer["state"][0]["exp_avg"].unsqueeze_, optimizer["param_groups"][0]["params"].pop):
        damage(0)
        torch.save(stock, file)
        with pytest.raises(InputError, match=r"by another program or for another network; train from its network file"):
            run(monkeypatch, *written("run", {"train": {"total_iter": 3}}), "--auto_resume")


def test_doctor_names_models_that_are_not_resumed_exactly():
    class Drawing(SRModel):
        def __init__(self, opt):
            super().__init__(opt)
            self.generator = np.random.default_rng(0)

    assert not_resumed_exactly() == [
        (name, "not resumed exactly: has a pool of earlier training pairs, which is not saved")
        for name in ("RealESRGANModel", "RealESRNetModel")
    ]
    assert own_random_state(Drawing) == "a generator of its own" and own_random_state(DroppingModel) is None


@pytest.mark.parametrize("damage", [
    {"iter": "2"}, {"epoch": 0.5}, {"position": "x"}, {"optimizers": 3}, {"optimizers": [3]}, {"schedulers": {}},
    {"random": [3]}, {"options": [1]}, {"best": 3}, {"networks": []},
])  # fmt: skip
def test_a_state_with_fields_of_other_types_is_one_line(tmp_path, damage):
    whole = {"epoch": 0, "iter": 2, "optimizers": [{}], "schedulers": [{}]}
    path = tmp_path / "2.state"
    torch.save(whole, path)
    assert read_state(path) == whole
    torch.save(whole | damage, path)
    with pytest.raises(InputError, match=f"does not load as a training state .expected another {next(iter(damage))}"):
        read_state(path)

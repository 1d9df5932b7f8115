"""A run that is stopped anywhere and resumed equals one that was never stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_run import basicsr, log_of, losses

from bidiffsr_arch.training import BIDiffSRModel, signals

# Its gradients sharpen with the progress of training, and its BatchNorm has statistics.
IRNET = {"binarizer": "irnet", "rescale": "pixelshuffle", "fusion": "concat", "tar": False, "taa": False}
COMMAND = [sys.executable, "-m", "bidiffsr_arch.cli", "train", "-opt", "options.yml"]


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested dictionaries and lists, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in inner for tensor in tensors(part)]


def equal(first: Path, second: Path) -> bool:
    """Whether two checkpoints are identical: weights, averages, optimizer and random states."""
    pair = [tensors(torch.load(path, weights_only=True)) for path in (first, second)]
    return all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def assert_same_end(whole: str, resumed: str, iteration: int) -> None:
    for file in (f"models/net_g_{iteration}.pth", f"training_states/{iteration}.state", "models/net_g_latest.pth"):
        assert equal(Path("experiments", whole, file), Path("experiments", resumed, file)), file


def train_until(iteration: int, options: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train, with a signal during an iteration; returns the exit status."""
    optimize = BIDiffSRModel.optimize_parameters

    def interrupted(self: BIDiffSRModel, current_iter: int) -> None:
        if current_iter == iteration:
            os.kill(os.getpid(), number)
        optimize(self, current_iter)

    with monkeypatch.context() as patch:
        patch.setattr(BIDiffSRModel, "optimize_parameters", interrupted)
        return basicsr("train", options)


@pytest.fixture
def options(run_options: dict[str, Any]) -> dict[str, Any]:
    """Six iterations of three, with dropout; nothing is validated."""
    run_options["network_g"]["dropout"] = 0.3
    run_options["train"]["total_iter"], run_options["val"] = 9, None
    del run_options["datasets"]["val"]
    run_options["datasets"]["train"]["dataset_enlarge_ratio"] = 3  # 9 samples, batches of 2: an epoch has 4, 1 is left
    run_options["logger"]["save_checkpoint_freq"] = 1
    return run_options


@pytest.mark.parametrize(
    ("kind", "workers", "prefetch_mode", "stopped_at", "network"),
    [
        ("MultiPairedImageDataset", 0, None, 3, {}),
        ("PairedImageDataset", 0, "cpu", 4, {}),  # at an epoch's end
        ("MultiPairedImageDataset", 2, None, 5, {}),
        ("PairedImageDataset", 2, "cpu", 6, IRNET),
    ],
)
def test_resuming_workers_and_prefetching_change_nothing(
    workplace, options, train_once, monkeypatch, kind, workers, prefetch_mode, stopped_at, network
):
    """The whole run has neither workers nor prefetching."""
    options["network_g"] |= network
    train_once(options | {"name": "whole"})
    options["datasets"]["train"] |= {"type": kind, "num_worker_per_gpu": workers, "prefetch_mode": prefetch_mode}
    options["name"] = "stopped"
    assert train_until(stopped_at, options, signal.SIGTERM, monkeypatch) == 143
    assert basicsr("train", options, "--auto_resume") == 0
    assert losses(log_of("experiments/stopped")) == losses(log_of("experiments/whole"))[stopped_at:]
    assert_same_end("whole", "stopped", 9)


def test_uniform_noise_levels_depend_on_the_seed_alone_and_are_resumed(workplace, options, monkeypatch):
    """Levels between timesteps, as SR3 draws them, are random numbers of each sample, too."""
    options |= {"time_input": "noise_level", "noise_level_sampling": "uniform"}
    options["logger"]["save_checkpoint_freq"] = 9
    options["network_g"] = {key: value for key, value in options["network_g"].items()
                            if key not in ("fp_res", "total_step", "dynamic_group")} | {"type": "SR3UNet"}  # fmt: skip
    for changes in ({"name": "whole"}, {"name": "again"}, {"name": "discrete", "noise_level_sampling": "discrete"},
                    {"name": "other seed", "manual_seed": 11}):  # fmt: skip
        assert basicsr("train", options | changes) == 0
    assert_same_end("whole", "again", 9)
    options["name"] = "stopped"
    assert train_until(4, options, signal.SIGTERM, monkeypatch) == 143
    assert basicsr("train", options, "--auto_resume") == 0
    assert_same_end("whole", "stopped", 9)
    whole = losses(log_of("experiments/whole"))
    assert losses(log_of("experiments/stopped")) == whole[4:]
    assert all(losses(log_of(f"experiments/{name}")) != whole for name in ("discrete", "other seed"))


def test_all_iterations_are_done_where_an_epoch_s_last_batch_is_dropped(workplace, options):
    options["datasets"]["train"] |= {"dataset_enlarge_ratio": 1}  # 3 samples: one batch of 2 an epoch
    assert basicsr("train", options) == 0
    assert len(losses(log_of("experiments/tiny"))) == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_state_and_training_goes_on_from_there(
    workplace, options, train_once, monkeypatch, capsys, number
):
    train_once(options | {"name": "whole"})

    options["logger"]["save_checkpoint_freq"], options["name"], before = 9, "stopped", signal.getsignal(number)
    assert train_until(3, options, number, monkeypatch) == 128 + number
    assert "stopped after iteration 3, saved" in capsys.readouterr().err
    assert signals.requested_signal() == 0
    assert signal.getsignal(number) == before  # which is SIG_IGN in a shell's background
    assert [path.name for path in Path("experiments/stopped/training_states").iterdir()] == ["3.state"]
    assert basicsr("train", options, "--auto_resume") == 0
    assert_same_end("whole", "stopped", 9)


def test_a_signal_during_a_validation_loses_nothing(workplace, run_options, monkeypatch):
    options = run_options
    options["network_g"]["dropout"] = 0.3
    options["val"] |= {"val_freq": 2, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    options["name"] = "whole"
    assert basicsr("train", options) == 0

    test = BIDiffSRModel.test
    options["name"], options["logger"]["save_checkpoint_freq"] = "stopped", 4

    def interrupted(self: BIDiffSRModel) -> None:
        torch.rand(3)  # as building a metric's network does
        test(self)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BIDiffSRModel, "test", interrupted)
        assert basicsr("train", options) == 143
    assert basicsr("train", options, "--auto_resume") == 0
    assert_same_end("whole", "stopped", 4)


def test_validation_does_not_change_the_random_states(workplace, run_options, monkeypatch):
    options = run_options
    options["network_g"]["dropout"] = 0.3
    options["val"] |= {"metrics": None}
    test = BIDiffSRModel.test
    monkeypatch.setattr(BIDiffSRModel, "test", lambda self: (torch.rand(3), test(self)))
    for name, often in (("never", 100), ("often", 1)):
        options["name"], options["val"]["val_freq"] = name, often
        assert basicsr("train", options) == 0
    assert_same_end("never", "often", 4)


def test_ctrl_c_in_a_terminal_reaches_all_processes_but_only_the_main_one_reacts(workplace, options):
    """The whole process group gets the signal, as from a terminal or from scancel."""
    options["train"]["total_iter"] = 100000
    options["datasets"]["train"] |= {"num_worker_per_gpu": 2, "prefetch_mode": "cpu"}
    options["logger"]["save_checkpoint_freq"] = 100000
    Path("options.yml").write_text(yaml.safe_dump(options))
    with open("said.txt", "w") as file:
        run = subprocess.Popen(COMMAND, stdout=file, stderr=file, start_new_session=True)
    said = Path("said.txt")
    try:
        end = time.monotonic() + 120
        while "iter:       3" not in said.read_text():
            assert run.poll() is None and time.monotonic() < end, said.read_text()[-2000:]
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == 130 and "Traceback" not in said.read_text(), said.read_text()[-2000:]
    finally:
        run.kill()
    (state,) = Path("experiments/tiny/training_states").iterdir()
    assert f"saved {Path(os.getcwd(), state)}" in said.read_text()


def test_a_drawn_seed_is_kept(workplace, options):
    del options["manual_seed"]
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    assert basicsr("train", options, "--auto_resume", "--force_yml", "train:total_iter=3") == 0
    states = Path("experiments/tiny/training_states")
    seeds = {torch.load(states / f"{n}.state", weights_only=True)["manual_seed"] for n in (1, 2, 3)}
    assert len(seeds) == 1


def test_a_run_goes_on_with_another_sampler_but_not_with_another_meaning_of_its_weights(workplace, options, capsys):
    def resume(*changes: str) -> int:
        return basicsr("train", options, "--auto_resume", "--force_yml", "train:total_iter=2", *changes)

    assert basicsr("train", options, "--force_yml", "train:total_iter=1") == 0
    others = {"residual_scale": 3, "data_range": [-1, 1], "diffuse": "residual", "beta_schedule:linear_end": 0.5,
              "beta_schedule:prediction_type": "v_prediction"}  # fmt: skip
    for key, value in others.items():
        capsys.readouterr()
        assert resume(f"{key}={value}") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
        assert len(lines) == 1 and f"expected {key.replace(':', ': ')}: " in lines[0]
    assert resume("beta_schedule:num_inference_steps=7", "beta_schedule:scheduler_type=DDPM") == 0
    log = log_of("experiments/tiny")
    assert "resumed with another beta_schedule: num_inference_steps: 2 -> 7" in log
    assert "resumed with another beta_schedule: scheduler_type: DDIM -> DDPM" in log


OTHER_NETWORK = {
    "inner_channel": 16, "norm_groups": 2, "channel_mults": [1, 2, 4], "attn_res": [16], "res_blocks": 2,
    "dropout": 0.1, "image_size": 32, "fp_res": [8], "dynamic_group": 2, "binarizer": "reactnet", "identity": False,
    "mid_attn": False, "tar": False, "taa": False, "rescale": "pixelshuffle", "fusion": "split", "patch_size": 2,
    "input_scale": 2.0, "output_scale": 2.0, "zero_init": True,
}  # fmt: skip


def test_every_change_of_the_network_is_refused_in_one_line(workplace, options, capsys):
    """Those that would not fit the weights, and those that would go on with another function."""
    assert basicsr("train", options, "--force_yml", "train:total_iter=1") == 0
    for key, value in OTHER_NETWORK.items():
        capsys.readouterr()
        changed = options | {"network_g": options["network_g"] | {key: value}}
        assert basicsr("train", changed, "--auto_resume") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
        assert len(lines) == 1 and f"expected network_g: {key}: " in lines[0], (key, lines)
        assert "was trained with, got " in lines[0]


def test_strict_resume_refuses_any_change(workplace, options, capsys):
    assert basicsr("train", options, "--force_yml", "train:total_iter=2") == 0
    others = {"train:optim_g:lr": 2e-4, "train:ema_decay": 0.5, "datasets:train:batch_size_per_gpu": 1}
    for key, value in others.items():
        capsys.readouterr()
        changes = ("--force_yml", "train:total_iter=2", f"{key}={value}")
        assert basicsr("train", options, "--auto_resume", "--strict-resume", *changes) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
        assert f"expected {key.replace(':', ': ')}: " in line
    assert basicsr("train", options, "--auto_resume", "--strict-resume", "--force_yml", "train:total_iter=2") == 0


def saved() -> list[int]:
    """Iterations of the states in the experiment; each has its network."""
    iterations = sorted(int(path.stem) for path in Path("experiments/tiny/training_states").glob("*.state"))
    networks = {path.name for path in Path("experiments/tiny/models").glob("net_g_*.pth")}
    assert networks == {f"net_g_{iteration}.pth" for iteration in iterations} | {"net_g_latest.pth"}
    return iterations


def test_only_the_newest_checkpoints_are_kept_with_keep_newest(workplace, options):
    options["logger"]["keep_newest"] = 2
    assert basicsr("train", options) == 0
    assert saved() == [8, 9]


@pytest.mark.parametrize(("better", "best"), [("higher", 2), ("lower", 3)])
def test_the_best_checkpoint_is_kept_beside_the_newest(workplace, run_options, monkeypatch, better, best):
    options = run_options
    options["train"]["total_iter"] = 6
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 2, "better": better}}
    options["val"] |= {"val_freq": 1, "metrics": metrics, "save_img": False}
    options["logger"] |= {"save_checkpoint_freq": 1, "keep_newest": 1, "keep_best": "psnr"}
    scores = iter([3.0, 9.0, 1.0, 4.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr("basicsr.models.sr_model.calculate_metric", lambda data, opt: next(scores))
    options["datasets"]["val"]["dataroot_gt"], options["datasets"]["val"]["dataroot_lq"] = "one/HR", "one/LR"
    for folder, name in (("HR", "0.png"), ("LR", "0x2.png")):
        Path("one", folder).mkdir(parents=True)
        Path("one", folder, name).write_bytes(Path("data", folder, name).read_bytes())
    assert basicsr("train", options) == 0
    assert saved() == [best, 6]
    noted = json.loads(Path("experiments/tiny/models/scores.json").read_text())
    assert noted["2"] == 9.0 and noted["3"] == 1.0


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"keep_newest": 0}, "keep_newest to be an integer of at least 1"),
        ({"keep_newest": "three"}, "keep_newest to be an integer"),
        ({"keep_newest": 1, "keep_best": "psnr"}, r"keep_best to be one of val: metrics \(none\)"),
    ],
)
def test_retention_options_are_checked(workplace, options, logger, message, capsys):
    options["logger"] |= logger
    assert basicsr("train", options) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_lost_loss_ends_training_and_names_the_last_good_checkpoint(workplace, options, monkeypatch, capsys):
    optimize = BIDiffSRModel.optimize_parameters

    def diverge(self: BIDiffSRModel, current_iter: int) -> None:
        optimize(self, current_iter)
        if current_iter == 3:
            self.log_dict["l_pix"] = float("nan")

    monkeypatch.setattr(BIDiffSRModel, "optimize_parameters", diverge)
    assert basicsr("train", options) == 1
    said = capsys.readouterr().err
    assert "diverged at iteration 3: l_pix is nan" in said and "training_states/2.state" in said
    assert not Path("experiments/tiny/training_states/3.state").exists()


def test_lost_weights_are_not_saved(workplace, options, monkeypatch, capsys):
    optimize = BIDiffSRModel.optimize_parameters

    def diverge(self: BIDiffSRModel, current_iter: int) -> None:
        optimize(self, current_iter)
        if current_iter == 2:
            next(self.net_g.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(BIDiffSRModel, "optimize_parameters", diverge)
    assert basicsr("train", options) == 1
    assert "diverged at iteration 2: 1 weights of the network are not finite" in capsys.readouterr().err
    assert not Path("experiments/tiny/models/net_g_2.pth").exists()

"""Training in several processes equals training in one with a larger batch; a lost process ends the run cleanly."""

import json
import multiprocessing
import os
import signal
import socket
import time
from copy import deepcopy
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from basicsr.utils import dist_util
from test_degradation import with_degradation
from test_resume import equal

from bidiffsr_arch.compat.distributed import chosen_launcher
from bidiffsr_arch.errors import InputError

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["bidiffsr_arch.cli.train", "bidiffsr_arch.training", "diffusers.schedulers.scheduling_ddim", "numba"]
)
PATIENCE = 120


def rank_main(folder: str, environment: dict[str, str], arguments: list[str], output: str) -> None:
    """One process of a run, which records its exact losses and metrics."""
    from bidiffsr_arch.cli import main
    from bidiffsr_arch.training import BIDiffSRModel

    os.chdir(folder)
    os.environ |= environment
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    update, log = BIDiffSRModel.update_learning_rate, BIDiffSRModel._log_validation_metric_values
    notes = open(f"{output}.json", "a", buffering=1)  # noqa: SIM115 (until the process ends)

    def noting_update(self, current_iter: int, **kwargs) -> None:
        if hasattr(self, "log_dict"):
            notes.write(json.dumps([current_iter - 1, self.log_dict["l_pix"]]) + "\n")
        update(self, current_iter, **kwargs)

    def noting_log(self, current_iter: int, *args) -> None:
        notes.write(json.dumps(["metrics", self.metric_results]) + "\n")
        log(self, current_iter, *args)

    BIDiffSRModel.update_learning_rate, BIDiffSRModel._log_validation_metric_values = noting_update, noting_log
    raise SystemExit(main(arguments))


def start(options: dict[str, Any], processes: int, *arguments: str, launcher: bool = True) -> list[ForkServerProcess]:
    """Start `basicsr train` in several processes, as torchrun does."""
    name = options["name"]
    Path(f"{name}.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    launched = ["--launcher", "pytorch"] if launcher and processes > 1 else []
    started = []
    for rank in range(processes):
        environment = meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = ["train", "-opt", f"{name}.yml", *launched, *arguments]
        started.append(SERVER.Process(target=rank_main, args=(os.getcwd(), environment, command, f"{name}.{rank}")))
        started[-1].start()
    return started


def ends(processes: list[ForkServerProcess], name: str) -> list[int]:
    """Exit codes; a process that does not end is an error."""
    try:
        for process in processes:
            process.join(PATIENCE)
        said = "".join(path.read_text()[-1500:] for path in Path().glob(f"{name}.?"))
        assert all(process.exitcode is not None for process in processes), said
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def noted(name: str, rank: int = 0) -> list[list[Any]]:
    return [json.loads(line) for line in Path(f"{name}.{rank}.json").read_text().splitlines()]


def wait_for(name: str, iteration: int) -> None:
    """Wait until the first process has finished an iteration."""
    end = time.monotonic() + PATIENCE
    while not (Path(f"{name}.0.json").exists() and [iteration] in [note[:1] for note in noted(name)]):
        assert time.monotonic() < end, Path(f"{name}.0").read_text()[-2000:]
        time.sleep(0.01)


@pytest.fixture
def options(run_options: dict[str, Any]) -> dict[str, Any]:
    """Ten iterations; 13 samples per epoch, of which one is dropped."""
    del run_options["find_unused_parameters"]
    run_options["train"]["total_iter"] = 10
    run_options["datasets"]["train"] |= {"dataset_enlarge_ratio": 4.5, "batch_size_per_gpu": 1}
    metrics = run_options["val"]["metrics"]
    run_options["val"] |= {"val_freq": 6, "metrics": {name: metrics[name] for name in ("psnr", "ssim", "params")}}
    return run_options


def test_two_processes_are_one_with_twice_the_batch(workplace, options):
    # Adam's first steps are +lr or -lr for any gradient, even one that is only rounding.
    options["train"]["optim_g"]["lr"] = 1e-5
    two, one = options | {"name": "two"}, deepcopy(options) | {"name": "one"}
    one["datasets"]["train"]["batch_size_per_gpu"] = 2
    one["find_unused_parameters"] = True
    started = start(two, 2) + start(one, 1)
    assert ends(started, "two") == [0, 0, 0]
    got, expected = noted("two"), noted("one")
    assert [note[0] for note in got] == [note[0] for note in expected]
    losses = [[note[1] for note in notes if note[0] != "metrics"] for notes in (got, expected)]
    assert len(losses[0]) == 9 and losses[0] == pytest.approx(losses[1], abs=1e-5)
    metrics = [[note[1] for note in notes if note[0] == "metrics"] for notes in (got, expected)]
    assert len(metrics[0]) == 2 and not [note for note in noted("two", 1) if note[0] == "metrics"]
    for mine, other in zip(*metrics, strict=True):
        assert mine == pytest.approx(other, rel=1e-3), "of networks that were trained apart by rounding"


def test_a_distributed_validation_has_the_metrics_of_one_process(workplace, options):
    """The same network in both: one process trains it, and two resume it with no iteration left."""
    options["name"], options["train"]["total_iter"] = "one", 2
    assert ends(start(options, 1), "one") == [0]
    Path("experiments/two").symlink_to("one")
    assert ends(start(options | {"name": "two"}, 2, "--auto_resume"), "two") == [0, 0]
    (_, one), (_, two) = noted("one")[-1], noted("two")[-1]
    assert one.keys() == two.keys() == {"psnr", "ssim", "params"}
    assert two == pytest.approx(one, abs=1e-9, rel=0)


def test_a_lost_process_ends_the_run_which_can_be_resumed_exactly(workplace, options):
    options["val"], options["network_g"]["dropout"], options["name"] = None, 0.2, "whole"
    options["find_unused_parameters"] = True
    del options["datasets"]["val"]
    assert ends(start(options, 2), "whole") == [0, 0]
    options["name"] = "killed"
    processes = start(options, 2)
    wait_for("killed", 3)
    os.kill(processes[1].pid, signal.SIGKILL)
    first, second = ends(processes, "killed")
    assert second == -signal.SIGKILL and first == 1
    assert "Traceback" not in Path("killed.0").read_text()
    assert "basicsr: another process of this run ended" in Path("killed.0").read_text()

    processes = start(options, 2, "--auto_resume")
    wait_for("killed", 7)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert ends(processes, "killed") in ([143, 143], [0, 0])  # the last iterations may be faster than the signal
    assert ends(start(options, 2, "--auto_resume"), "killed") == [0, 0]
    for file in ("models/net_g_10.pth", "training_states/10.state"):
        assert equal(Path("experiments/whole", file), Path("experiments/killed", file))


def test_a_run_can_be_resumed_with_another_number_of_processes(workplace, options):
    """From a position that is no multiple of it: processes with unequal numbers of batches would hang."""
    options["val"], options["name"] = None, "more"
    options["datasets"]["train"]["dataset_enlarge_ratio"] = 10 / 3  # 10 samples an epoch
    options["find_unused_parameters"] = True
    del options["datasets"]["val"]
    options["train"]["total_iter"], options["logger"]["save_checkpoint_freq"] = 3, 1
    assert ends(start(options, 1), "more") == [0]
    options["train"]["total_iter"] = 8
    assert ends(start(options, 2, "--auto_resume"), "more") == [0, 0]
    states = [torch.load(f"experiments/more/training_states/{n}.state", weights_only=True) for n in (3, 6, 8)]
    assert [(state["epoch"], state["position"]) for state in states] == [(0, 3), (0, 9), (1, 4)]
    assert "dropout uses other random numbers" in Path("more.0").read_text()


def test_each_process_resumes_its_own_pool_of_training_pairs(workplace, run_options):
    options = with_degradation(run_options) | {"name": "whole"}
    assert ends(start(options, 2), "whole") == [0, 0]
    options["name"], options["train"]["total_iter"] = "stopped", 3
    assert ends(start(options, 2), "stopped") == [0, 0]
    options["train"]["total_iter"] = 4
    assert ends(start(options, 2, "--auto_resume"), "stopped") == [0, 0]
    for file in ("models/net_g_4.pth", "training_states/4.state"):
        assert equal(Path("experiments/whole", file), Path("experiments/stopped", file))
    mine, other = torch.load("experiments/whole/training_states/4.state", weights_only=True)["pools"]
    assert mine["queue_ptr"] == other["queue_ptr"] == 2 and not torch.equal(mine["queue_gt"], other["queue_gt"])
    assert "starts empty" not in Path("stopped.0").read_text()
    options["train"]["total_iter"] = 5
    assert ends(start(options, 1, "--auto_resume"), "stopped") == [0]
    assert "the pool of training pairs starts empty" in Path("stopped.0").read_text()


def test_torchrun_without_launcher_is_distributed(workplace, options):
    """Otherwise each process would train alone and rename the folder of the others."""
    options["val"], options["name"], options["train"]["total_iter"] = None, "torchrun", 2
    options["find_unused_parameters"] = True
    del options["datasets"]["val"]
    assert ends(start(options, 2, launcher=False), "torchrun") == [0, 0]
    assert [path.name for path in Path("experiments").iterdir()] == ["torchrun"]
    assert "WORLD_SIZE is 2: --launcher pytorch is assumed" in Path("torchrun.0").read_text()
    assert "is assumed" not in Path("torchrun.1").read_text()
    assert torch.load("experiments/torchrun/training_states/2.state", weights_only=True)["position"] == 4


@pytest.mark.parametrize(
    ("given", "environment", "chosen"),
    [
        ("none", {"RANK": "1", "WORLD_SIZE": "2"}, "pytorch"),
        ("slurm", {"RANK": "1", "WORLD_SIZE": "2"}, "slurm"),
        ("none", {"WORLD_SIZE": "2"}, "none"),  # which some clusters set for every job
        ("none", {}, "none"),
    ],
)
def test_the_launcher_is_torchrun_where_it_started_the_process(monkeypatch, given, environment, chosen):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chosen_launcher(given) == chosen


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job of one task, and an scontrol that knows its machine."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "cpu[01-02]" ] && echo 127.0.0.1 && echo cpu02\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = {"PROCID": "0", "NTASKS": "1", "LOCALID": "0", "NODELIST": "cpu[01-02]"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield monkeypatch
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_slurm_starts_a_run(slurm):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist_util.init_dist("slurm", backend="nccl", port=port)
    assert dist_util.get_dist_info() == (0, 1)
    assert os.environ["MASTER_ADDR"] == "127.0.0.1" and os.environ["LOCAL_RANK"] == "0"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SLURM_PROCID", "", "SLURM_PROCID to be a number, got ''; start by srun"),
        ("SLURM_NTASKS", "two", "SLURM_NTASKS to be a number, got 'two'"),
        ("SLURM_NODELIST", "other", "scontrol cannot expand SLURM_NODELIST 'other'"),
        ("PATH", "", "scontrol cannot expand"),
    ],
)
def test_outside_of_a_job_slurm_is_one_line(slurm, variable, value, message):
    slurm.setenv(variable, value)
    with pytest.raises(InputError, match=message):
        dist_util.init_dist("slurm", backend="nccl", port=29500)


def test_without_torchrun_the_pytorch_launcher_is_one_line(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="RANK to be a number, got ''; start by torchrun"):
        dist_util.init_dist("pytorch")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match=r"could not be formed .* start the processes by torchrun"):
        dist_util.init_dist("pytorch")

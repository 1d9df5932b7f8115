"""Kill training with SIGKILL at random moments, resume it each time, and compare with a run that was never killed.

    python benchmarks/kill_and_resume.py --kills 100 -o benchmarks/kill_and_resume.md

A tiny network is trained on noise with a checkpoint after every second iteration. After each kill, the newest training
state must load with its own network, and no iteration before the last finished save may be lost. At the end, all logged
losses and all numbers in the last checkpoint must equal those of the uninterrupted run. Otherwise the exit status is 1.
Runs are forked from a process that has imported everything, so that kills hit training and saving, not imports.
"""

import argparse
import logging
import os
import platform
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from tqdm import tqdm

from bidiffsr_arch.cli import main
from bidiffsr_arch.files import UNFINISHED, digest

ITERATIONS, SAVE_FREQUENCY = 120, 2
LOSS = re.compile(r"iter: *([\d,]+),.* l_pix: (\S+)")


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(5):
        for name, size in ((f"HR/{index}.png", 48), (f"LR/{index}.png", 24)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (size, size, 3), np.uint8))


def write_options(name: str, workers: int) -> None:
    train = dict(
        name="noise", type="MultiPairedImageDataset", dataroot_gt="HR", dataroot_lq="LR", io_backend={"type": "disk"},
        gt_size=16, use_hflip=True, use_rot=True, num_worker_per_gpu=workers, batch_size_per_gpu=2,
        dataset_enlarge_ratio=7, prefetch_mode="cpu" if workers else None,
    )  # fmt: skip
    network = dict(
        type="BIDiffSRUNet", inner_channel=8, norm_groups=4, channel_mults=[1, 2], res_blocks=1, dropout=0.2,
        image_size=16, fp_res=[16], total_step=100, dynamic_group=3,
    )  # fmt: skip
    options = dict(
        name=name, model_type="BIDiffSRModel", scale=2, num_gpu=0, manual_seed=1, datasets={"train": train},
        network_g=network, beta_schedule={"n_timestep": 100, "linear_start": 1e-4, "linear_end": 5e-2}, path={},
        train=dict(
            ema_decay=0.9, optim_g={"type": "Adam", "lr": 1e-3}, total_iter=ITERATIONS, warmup_iter=-1,
            scheduler={"type": "MultiStepLR", "milestones": [40, 80], "gamma": 0.5},
            pixel_opt={"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        ),
        logger={"print_freq": 1, "save_checkpoint_freq": SAVE_FREQUENCY, "use_tb_logger": False},
    )  # fmt: skip
    Path(f"{name}.yml").write_text(yaml.safe_dump(options))


def start(name: str) -> int:
    """Fork a process that resumes the training; returns its ID."""
    process = os.fork()
    if process:
        return process
    with open(f"{name}.txt", "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from basicsr.utils.logger import initialized_logger

    initialized_logger.clear()
    logging.getLogger("basicsr").handlers.clear()
    os._exit(main(["train", "-opt", f"{name}.yml", "--auto_resume"]))


def ends_by_itself(process: int, seconds: float) -> bool:
    """Kill the process after this time; returns whether it had already finished."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, f"training ended with {os.waitstatus_to_exitcode(status)}"
            return True
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def logged_losses(name: str) -> dict[int, set[str]]:
    """Every loss that the runs of an experiment printed, by iteration."""
    found: dict[int, set[str]] = {}
    for iteration, loss in LOSS.findall(Path(f"{name}.txt").read_text()):
        found.setdefault(int(iteration.replace(",", "")), set()).add(loss)
    return found


def newest_state(name: str) -> int:
    """The newest saved iteration, 0 for none."""
    states = Path("experiments", name, "training_states").glob("*.state")
    return max((int(path.stem) for path in states), default=0)


def is_readable(name: str, iteration: int) -> bool:
    """Whether a state loads with the network that was saved with it."""
    try:
        state = torch.load(f"experiments/{name}/training_states/{iteration}.state", weights_only=True)
        torch.load(f"experiments/{name}/models/net_g_{iteration}.pth", weights_only=True)
        is_pair = digest(f"experiments/{name}/models/net_g_{iteration}.pth") == state["networks"]["net_g"]
        return state["iter"] == iteration and is_pair
    except Exception as error:  # damaged files, which this looks for, may raise anything
        print(f"{name}, iteration {iteration}: {error}")
        return False


def killed_moment(name: str, newest: int) -> str:
    """What the process was doing when it was killed; removes an unfinished file, to tell it from those of later
    kills."""
    if unfinished := list(Path("experiments", name).glob(f"*/{UNFINISHED}*")):
        for file in unfinished:
            file.unlink()
        return "writing a file"
    if Path("experiments", name, "models", f"net_g_{newest + SAVE_FREQUENCY}.pth").exists():
        return "between network and state"
    return "training" if logged_losses(name) else "before the first iteration"


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in inner for tensor in tensors(part)]


def differences(name: str, whole: str) -> int:
    """Number of losses and tensors that differ between a killed and resumed experiment and the uninterrupted one."""
    different = 0
    for file in ("models/net_g_latest.pth", f"training_states/{ITERATIONS}.state"):
        pair = [tensors(torch.load(Path("experiments", run, file), weights_only=True)) for run in (name, whole)]
        different += sum(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
    expected, got = logged_losses(whole), logged_losses(name)
    return different + sum(got.get(iteration) != losses for iteration, losses in expected.items())


def children_seconds() -> float:
    """CPU time of all finished processes, which does not depend on the load of the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def experiments(kills: int, workers: int, seed: int) -> dict[str, int]:
    """Kill until the total number is reached; if a training finishes before, start another experiment."""
    rng, found = random.Random(seed), Counter(workers=workers, kills=kills)
    whole = f"whole_{workers}"
    write_options(whole, workers)
    before = children_seconds()
    assert ends_by_itself(start(whole), 600)
    longest_life = 0.15 * (children_seconds() - before)
    with tqdm(total=kills, unit="kill", desc=f"{workers} workers") as progress:
        while progress.n < kills:
            found["experiments"] += 1
            name = f"killed_{workers}_{found['experiments']}"
            write_options(name, workers)
            newest = 0
            while not ends_by_itself(start(name), rng.uniform(0, longest_life) if progress.n < kills else 600):
                before, newest = newest, newest_state(name)
                logged = max(logged_losses(name), default=1)
                found["lost"] += newest < max(before, (logged - 1) // SAVE_FREQUENCY * SAVE_FREQUENCY)
                found["unreadable"] += newest > 0 and not is_readable(name, newest)
                found["repeated"] += max(logged - newest, 0)
                found[killed_moment(name, newest)] += 1
                progress.update()
            found["different"] += differences(name, whole)
    return found


COLUMNS = {
    "loader workers": "workers",
    "kills": "kills",
    "experiments": "experiments",
    "killed before the first iteration": "before the first iteration",
    "in training": "training",
    "while writing a file": "writing a file",
    "between a network and its state": "between network and state",
    "unreadable newest states": "unreadable",
    "lost saves": "lost",
    "other losses or tensors at the end": "different",
}


def report(rows: list[dict[str, int]], seconds: float) -> str:
    lines = [
        "# Kill and resume",
        "",
        f"`python benchmarks/kill_and_resume.py`, {date.today()}, {platform.machine()}, {os.cpu_count()} cores shared",
        f"with other work, 1 thread, torch {torch.__version__}, Python {platform.python_version()}; {seconds:.0f} s.",
        f"An experiment has {ITERATIONS} iterations and a checkpoint every {SAVE_FREQUENCY}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(str(row[key]) for key in COLUMNS.values())} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="for each number of workers (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the data loader")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the table there as well")
    args = parser.parse_args()
    output = Path(args.output).resolve() if args.output else None
    torch.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_images(Path(folder))
        found = []
        for workers in args.workers:
            found.append(experiments(args.kills, workers, args.seed))
            text = report(found, time.monotonic() - begin)
            print(text, flush=True)
            if output:
                output.write_text(text)
        os.chdir("/")
    sys.exit(any(row[key] for row in found for key in ("unreadable", "lost", "different")))

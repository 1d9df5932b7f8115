"""Training of many small networks for benchmarks: each run is trained once, in a separate process with one thread, is
resumed after an interruption, and stores its results beside its option file in experiments/."""

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bidiffsr_arch.cli import main as basicsr
from bidiffsr_arch.cli.check import absent_datasets, observed_results
from bidiffsr_arch.config.file import AnyFile, load_options
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.config.yaml import dump_options
from bidiffsr_arch.files import write_bytes
from bidiffsr_arch.metrics.cost import count_cost
from bidiffsr_arch.networks import build_network
from bidiffsr_arch.training.stepping import Stepping

Results = dict[str, dict[str, float]]
"""{data set: {metric: value}}"""

DATASETS = ("Set5", "photographs")


def file_name(title: str) -> str:
    """Convert a title to a part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in title)


def validation(scale: int) -> dict[str, dict[str, Any]]:
    """Options of those of `DATASETS` that exist on this machine, from the shipped option file for tests."""
    options = load_options(shipped_path(f"test_BIDiffSR_small_x{scale}"))
    wanted = [data for data in options["datasets"].values() if data["name"] in DATASETS]
    absent = absent_datasets(AnyFile.read(options))
    return {f"val_{data['name']}": data for data in wanted if data["name"] not in absent}


def shortened(options: dict[str, Any], name: str, seed: int, iterations: int) -> dict[str, Any]:
    """Options for a run of `iterations`, which validates once, at its end, on `DATASETS`.

    The average of weights covers at most a tenth of the iterations; otherwise it would include the beginning of a short
    run.
    """
    options = options | {"name": name, "manual_seed": seed, "num_gpu": 0}
    options["datasets"] = {"train": options["datasets"]["train"], **validation(options["scale"])}
    options["train"] |= {"total_iter": iterations}
    options["train"]["ema_decay"] = min(options["train"]["ema_decay"], iterations / (iterations + 10))
    options["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [iterations], "eta_min": 0}
    options["logger"] |= {"save_checkpoint_freq": max(iterations // 4, 1)}
    options["val"] |= {"val_freq": 10 * iterations, "save_img": False}
    return options


def train_and_measure(options: dict[str, Any]) -> Results:
    """Train or resume a run; returns the metrics of the averaged network."""
    file = Path("experiments", f"{options['name']}.yml")
    result, log = file.with_suffix(".json"), file.with_suffix(".txt")
    if not result.exists():
        write_bytes(file, dump_options(options).encode())
        with open(log, "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        with observed_results() as results:
            status = basicsr(["train", "-opt", str(file), "--auto_resume"])
        if status or not results:
            raise RuntimeError(f"{options['name']}: expected a trained network, got exit status {status}; see {log}")
        write_bytes(result, json.dumps(results).encode())
    return json.loads(result.read_text())


def train_all(runs: Sequence[dict[str, Any]], jobs: int) -> list[Results]:
    """Train `jobs` of the runs at the same time, with a progress bar."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the child processes
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        return list(tqdm(pool.imap(train_and_measure, runs, chunksize=1), total=len(runs), unit="run"))


def seconds_per_step(options: Mapping[str, Any], steps: int = 5) -> float:
    """Median CPU seconds of forward and backward pass on one thread, with the batch size of the options."""
    torch.set_num_threads(1)
    data = options["datasets"]["train"]
    network = Stepping(Step.part_of(options["train"])).prepare(build_network(options["network_g"]), torch.device("cpu"))
    image = torch.rand(data["batch_size_per_gpu"], 3, data["gt_size"], data["gt_size"])
    time_of = torch.randint(options["beta_schedule"]["n_timestep"], (len(image),))
    seconds = []
    for _ in range(steps + 2):
        start = time.process_time()
        network(image, image, time_of).square().mean().backward()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[2:])


def cost_cells(options: Mapping[str, Any]) -> list[str]:
    """Parameters (k) and operations (G) at 256x256 in the paper's accounting, and the binary share of the
    multiplications."""
    cost = count_cost(build_network(options["network_g"]))
    share = cost.ops_binary / (cost.ops_binary + cost.ops_fp)
    return [f"{cost.params / 1e3:.1f}", f"{cost.ops / 1e9:.3f}", f"{share:.0%}"]


COST_HEAD = ["Params (k)", "OPs (G)", "binary"]


def quality_cells(results: Sequence[Results]) -> list[str]:
    """Mean and half the range of every metric over the runs."""
    cells = []
    for dataset, metrics in results[0].items():
        for metric in metrics:
            values = [result[dataset][metric] for result in results]
            digits = 2 if metric == "psnr" else 4
            spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
    return cells


def quality_head(results: Results) -> list[str]:
    return [f"{dataset} {metric.upper()}" for dataset, metrics in results.items() for metric in metrics]

"""The paper's rows at a small size: the same width, pictures, iterations and seeds for all. Prints Markdown.

    python benchmarks/ranking.py [--iterations 1000] [--seeds 10 11] [--rows NAME ...] [--jobs 2] [-o FILE.md]

Each row is a network of a shipped option file, cut to the size of `options/train_BIDiffSR_small_x2.yml` and trained by
it, on the pictures that it names. A run that was stopped goes on; one that has ended is not done again: what it gave
lies beside its option file in experiments/.
"""

import argparse
import inspect
import json
import multiprocessing
import os
import platform
import statistics
from datetime import date
from pathlib import Path
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from tqdm import tqdm

from bidiffsr_arch.cli import main as basicsr
from bidiffsr_arch.cli.check import observed_results
from bidiffsr_arch.data.files import write_bytes
from bidiffsr_arch.metrics.cost import count_cost
from bidiffsr_arch.option_file import dump_options, load_options, shipped_path
from bidiffsr_arch.upscale.weights import build_network

SMALL = "train_BIDiffSR_small_x2"
# Name in the table: option file of the network.
ROWS = {
    "SR3 (full precision)": "train_SR3_x2",
    "BNN": "train_BNN_x2",
    "DoReFa": "train_DoReFa_x2",
    "XNOR": "train_XNOR_x2",
    "IRNet": "train_IRNet_x2",
    "ReActNet": "train_ReActNet_x2",
    "BBCU": "train_BBCU_x2",
    "BI-DiffSR": "train_BIDiffSR_x2",
    "Baseline": "ablation/breakdown_baseline",
    "+Identity": "ablation/breakdown_identity",
    "+CP": "ablation/breakdown_cp",
    "+CS": "ablation/breakdown_cs",
}
# What a network's size is made of; the rest is the row's own.
SIZE = ("inner_channel", "norm_groups", "channel_mults", "res_blocks", "attn_res", "dropout", "image_size", "fp_res",
        "total_step", "zero_init", "mid_attn")  # fmt: skip


def options_of(row: str, seed: int, iterations: int) -> dict[str, Any]:
    """The small option file with the row's network."""
    options = load_options(shipped_path(SMALL))
    small, network = options["network_g"], load_options(shipped_path(ROWS[row]))["network_g"]
    known = inspect.signature(ARCH_REGISTRY.get(network["type"])).parameters
    options["network_g"] = network | {key: small[key] for key in SIZE if key in small and key in known}
    file = "".join(letter if letter.isalnum() else "_" for letter in row)
    options |= {"name": f"ranking_{file}_seed{seed}_{iterations}", "manual_seed": seed, "num_gpu": 0}
    options["train"] |= {"total_iter": iterations}
    options["train"]["scheduler"] |= {"periods": [iterations]}
    options["logger"] |= {"save_checkpoint_freq": max(iterations // 4, 1)}
    options["val"] |= {"val_freq": 10 * iterations, "save_img": False}  # at the end only
    return options


def train_and_measure(job: tuple[str, int, int]) -> tuple[str, int, dict[str, dict[str, float]]]:
    """Train one row, or go on with it -> the row, its seed, and {data set: {metric: value}} of the averaged network."""
    row, seed, _ = job
    options = options_of(*job)
    file = Path("experiments", f"{options['name']}.yml")
    result = file.with_suffix(".json")
    if not result.exists():
        write_bytes(file, dump_options(options).encode())
        with open(file.with_suffix(".txt"), "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        with observed_results() as results:
            status = basicsr(["train", "-opt", str(file), "--auto_resume"])
        if status or not results:
            raise SystemExit(f"expected {row} to be trained, got exit status {status}; see {file.with_suffix('.txt')}")
        write_bytes(result, json.dumps(results).encode())
    return row, seed, json.loads(result.read_text())


def table(found: dict[str, list[dict[str, dict[str, float]]]], iterations: int) -> str:
    """Markdown: a row's cost at 256x256, and mean and spread over its seeds of every metric."""
    first = next(iter(found.values()))[0]
    columns = [(dataset, metric) for dataset, metrics in first.items() for metric in metrics]
    head = ["row", "Params (k)", "OPs (G)", "seeds", *(f"{dataset} {metric.upper()}" for dataset, metric in columns)]
    lines = [head, ["---"] * len(head)]
    for row, results in found.items():
        cost = count_cost(build_network(options_of(row, 0, iterations)["network_g"]))
        cells = [row, f"{cost.params / 1e3:.1f}", f"{cost.ops / 1e9:.3f}", str(len(results))]
        for dataset, metric in columns:
            values = [result[dataset][metric] for result in results]
            digits = 2 if metric == "psnr" else 4
            spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11])
    parser.add_argument("--jobs", type=int, default=2, help="rows trained at the same time, one thread each")
    parser.add_argument("-o", "--output", type=Path, help="write the table there, too")
    args = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    jobs = [(row, seed, args.iterations) for seed in args.seeds for row in args.rows]
    found = {row: [] for row in args.rows}
    with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
        for row, _, results in tqdm(pool.imap(train_and_measure, jobs, chunksize=1), total=len(jobs), unit="run"):
            found[row].append(results)
    batch = load_options(shipped_path(SMALL))["datasets"]["train"]
    text = (
        f"{args.iterations} iterations of {batch['batch_size_per_gpu']} crops of {batch['gt_size']} x "
        f"{batch['gt_size']} pixels, seeds {', '.join(map(str, args.seeds))}; `python benchmarks/ranking.py`, "
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}, one thread a run. ± is half the range over "
        f"the seeds.\n\n{table(found, args.iterations)}\n"
    )
    print(text)
    if args.output:
        write_bytes(args.output, text.encode())


if __name__ == "__main__":
    main()

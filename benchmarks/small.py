"""Which small network to ship: several of them, each trained for the same time. Prints Markdown.

    python benchmarks/small.py [--scale 2] [--seconds 120] [--rows NAME ...] [--jobs 2] [-o FILE.md]

Every row is `options/train_BIDiffSR_small_x{scale}.yml` with a few options changed. The number of iterations is what
fits into --seconds on one thread, by the time of a forward and backward pass of this machine.
"""

import argparse
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from small_runs import (
    COST_HEAD,
    cost_cells,
    file_name,
    markdown,
    quality_cells,
    quality_head,
    seconds_a_step,
    shortened,
    train_all,
)

from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.files import write_bytes

# Name in the table: options that are changed, as `--force_yml` takes them.
TRIED = {
    "as shipped": [],
    "16 channels": ["network_g:inner_channel=16"],
    "24 channels": ["network_g:inner_channel=24"],
    "32 channels": ["network_g:inner_channel=32"],
    "2 levels, 1 ResBlock each": ["network_g:channel_mults=[1, 2]", "network_g:res_blocks=1"],
    "2 levels, 2 ResBlocks each": ["network_g:channel_mults=[1, 2]", "network_g:res_blocks=2"],
    "3 levels, 1 ResBlock each": ["network_g:channel_mults=[1, 2, 4]", "network_g:res_blocks=1"],
    "3 levels, 2 ResBlocks each": ["network_g:channel_mults=[1, 2, 4]", "network_g:res_blocks=2"],
    "all convolutions but first and last 1-bit": ["network_g:fp_res=[]"],
    "one timestep group": ["network_g:dynamic_group=1"],
    "batches of 4 crops of 48 x 48": [
        "datasets:train:gt_size=48",
        "datasets:train:batch_size_per_gpu=4",
        "network_g:image_size=48",
        "network_g:fp_res=[48]",
    ],
    "batches of 2 crops of 64 x 64": [
        "datasets:train:gt_size=64",
        "datasets:train:batch_size_per_gpu=2",
        "network_g:image_size=64",
        "network_g:fp_res=[64]",
    ],
    "1 step, from the noisiest timestep": [
        "beta_schedule:num_inference_steps=1",
        "beta_schedule:timestep_spacing=trailing",
    ],
    "4 steps, the last without noise": [
        "beta_schedule:num_inference_steps=4",
        "beta_schedule:timestep_spacing=leading",
    ],
    "black and white at ±1, residuals as large": ["data_range=[-1, 1]", "residual_scale=2.0"],
    "residuals 2 times as large": ["residual_scale=0.25"],
    "residuals 4 times as large": ["residual_scale=0.5"],
}


def options_of(row: str, scale: int, seconds: float) -> dict[str, Any]:
    """The shipped options with the row's changes, for as many iterations as there is time for; those of a run that has
    begun before stay."""
    name = f"small_x{scale}_{file_name(row)}_{seconds:g}s"
    if (begun := Path("experiments", f"{name}.yml")).exists():
        return load_options(begun)
    options = load_options(shipped_path(f"train_BIDiffSR_small_x{scale}"), TRIED[row])
    iterations = int(seconds / seconds_a_step(options)) // 50 * 50
    return shortened(options, name, options["manual_seed"], iterations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(2, 4), default=2)
    parser.add_argument("--rows", nargs="+", choices=TRIED, default=list(TRIED), metavar="NAME", help=", ".join(TRIED))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at the same time, one thread each")
    parser.add_argument("-o", "--output", type=Path, help="write the table there, too")
    args = parser.parse_args()

    runs = [options_of(row, args.scale, args.seconds) for row in args.rows]
    results = train_all(runs, args.jobs)
    rows = [
        [row, *cost_cells(run), str(run["train"]["total_iter"]), *quality_cells([result])]
        for row, run, result in zip(args.rows, runs, results, strict=True)
    ]
    head = ["changed", *COST_HEAD, "iterations", *quality_head(results[0])]
    text = (
        f"x{args.scale}, {args.seconds:g} s on one thread for each; `python benchmarks/small.py`, {date.today()}, "
        f"{platform.machine()}, torch {torch.__version__}.\n\n{markdown(head, rows)}\n"
    )
    print(text)
    if args.output:
        write_bytes(args.output, text.encode())


if __name__ == "__main__":
    main()

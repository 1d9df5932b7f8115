"""Comparison of small networks that are trained for the same time, to choose one to ship. Prints Markdown.

    python benchmarks/small.py [--scale 2] [--seconds 120] [--rows NAME ...] [--jobs 2] [-o FILE.md]

Every row is an option file, `benchmarks/small_x2.yml` or `options/train_BIDiffSR_small_x4.yml`, with a few options
changed. The number of iterations is --seconds divided by the CPU time of a forward and backward pass on one thread of
this machine; the learning rate decays to 0. A row of two stages spends half of its iterations on each.
"""

import argparse
from pathlib import Path
from typing import Any

from small_runs import (
    COST_HEAD,
    cost_cells,
    file_name,
    quality_cells,
    quality_head,
    seconds_per_step,
    shortened,
    train_all,
)
from tables import report

from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped_path

BEGIN = {2: Path(__file__).with_name("small_x2.yml"), 4: shipped_path("train_BIDiffSR_small_x4")}
# By scale, name in the table: options that are changed, as `--force_yml` takes them.
TRIED = {
    2: {
        "unchanged": [],
        "24 channels": ["network_g:inner_channel=24"],
        "2 levels, 1 ResBlock each": ["network_g:res_blocks=1"],
        "batches of 2 crops of 64 x 64": [
            "datasets:train:gt_size=64",
            "datasets:train:batch_size_per_gpu=2",
            "network_g:image_size=64",
            "network_g:fp_res=[64]",
        ],
        "output_scale 1/8": ["network_g:output_scale=0.125"],
        "patches of 2, 48 channels, as x4 is trained": [
            "network_g:inner_channel=48",
            "network_g:norm_groups=16",
            "network_g:patch_size=2",
            "network_g:input_scale=0.0625",
            "network_g:output_scale=0.125",
            "network_g:image_size=64",
            "network_g:fp_res=[64]",
            "datasets:train:gt_size=64",
            "train:timestep_weighting:uniform=0",
            "train:timestep_weighting:sampler=1",
            "train:pixel_opt:type=MSELoss",
        ],
    },
    4: {
        "unchanged": [],
        "output_scale 1": ["network_g:output_scale=1"],
        "input_scale 1": ["network_g:input_scale=1"],
        "L1 loss": ["train:pixel_opt:type=L1Loss"],
        "Charbonnier loss": ["train:pixel_opt:type=CharbonnierLoss"],
        "L1 loss in the second half": ["train:loss_schedule=[{from_iter: HALF, type: L1Loss}]"],
        "all timesteps": ["train:timestep_weighting:sampler=0", "train:timestep_weighting:uniform=1"],
        "learning rate 1e-3": ["train:optim_g:lr=0.001"],
        "learning rate 4e-3": ["train:optim_g:lr=0.004"],
        "batches of 4": ["datasets:train:batch_size_per_gpu=4"],
        "crops of 64 x 64": ["datasets:train:gt_size=64", "network_g:image_size=64", "network_g:fp_res=[64]"],
        "32 channels": ["network_g:inner_channel=32"],
        "96 channels": ["network_g:inner_channel=96"],
        "1 ResBlock per level": ["network_g:res_blocks=1"],
        "3 ResBlocks per level": ["network_g:res_blocks=3"],
        "3 levels, 1 ResBlock each": ["network_g:channel_mults=[1, 2, 4]", "network_g:res_blocks=1"],
        "patches of 2, 32 channels, 3 levels": [
            "network_g:patch_size=2",
            "network_g:inner_channel=32",
            "network_g:channel_mults=[1, 2, 4]",
        ],
        "all convolutions but first and last 1-bit": ["network_g:fp_res=[]"],
        "activations 1-bit first, then weights": ["path:pretrain_network_g=FIRST"],
        "a teacher in full precision": ["train:teacher={path: FIRST, weight: 0.5}"],
    },
}
# Rows of two stages, with the options of the first. The row's own changes name its network FIRST.
FIRST_STAGE = {
    "activations 1-bit first, then weights": (BEGIN[4], ["network_g:binarize=activations"]),
    "a teacher in full precision": (Path(__file__).with_name("small_x4_float.yml"), []),
}


def stages_of(row: str, scale: int, seconds: float) -> list[dict[str, Any]]:
    """Options of the stages of a row, which share the seconds."""
    name = f"small_x{scale}_{file_name(row)}_{seconds:g}s"
    stages = {name: (BEGIN[scale], TRIED[scale][row])}
    if row in FIRST_STAGE:
        stages = {f"{name}_first": FIRST_STAGE[row], **stages}
    return [options_of(stage, *source, seconds / len(stages)) for stage, source in stages.items()]


def options_of(name: str, file: Path, changes: list[str], seconds: float) -> dict[str, Any]:
    """An option file with changes and a number of iterations; a run that has begun keeps its options."""
    if (begun := Path("experiments", f"{name}.yml")).exists():
        return load_options(begun)
    first = f"experiments/{name}_first/models/net_g_latest.pth"
    iterations = int(seconds / seconds_per_step(load_options(file, changes))) // 25 * 25
    changed = [change.replace("FIRST", first).replace("HALF", str(iterations // 2)) for change in changes]
    options = load_options(file, changed)
    return shortened(options, name, options["manual_seed"], iterations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(2, 4), default=2)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows of the table (default: all)")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at the same time, one thread each")
    parser.add_argument("-o", "--output", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    rows = args.rows or list(TRIED[args.scale])
    if unknown := set(rows) - TRIED[args.scale].keys():
        parser.error(f"expected rows of {', '.join(TRIED[args.scale])}; got {', '.join(unknown)}")

    stages = [stages_of(row, args.scale, args.seconds) for row in rows]
    train_all([first for first, *later in stages if later], args.jobs)
    runs = [row_stages[-1] for row_stages in stages]
    results = train_all(runs, args.jobs)
    table = [
        [row, *cost_cells(run), str(run["train"]["total_iter"]), *quality_cells([result])]
        for row, run, result in zip(rows, runs, results, strict=True)
    ]
    head = ["changed", *COST_HEAD, "iterations", *quality_head(results[0])]
    conditions = f"x{args.scale}, {args.seconds:g} s on one thread for each network; `python benchmarks/small.py`"
    report(conditions, head, table, args.output)


if __name__ == "__main__":
    main()

"""The rows of the paper's tables at a small size, with the same width, images, iterations and seeds. Prints Markdown.

    python benchmarks/ranking.py [--iterations 1000] [--seeds 10 11] [--all-1-bit] [--rows NAME ...] [--jobs 2]
                                 [-o FILE.md] [--append]

Each row is the network of a shipped option file, reduced to the size of the one in
`benchmarks/small_x2.yml`, and trained with that file's options and images. Finished runs are not repeated.
"""

import argparse
import inspect
from pathlib import Path
from typing import Any

from small_runs import COST_HEAD, cost_cells, file_name, quality_cells, quality_head, shortened, train_all
from tables import report

from bidiffsr_arch import archs
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped_path

SMALL = Path(__file__).with_name("small_x2.yml")
# Name in the table: option file of the network.
ROWS = {
    "SR3 (full precision)": "train_SR3_x2",
    "BNN": "train_BNN_x2",
    "DoReFa": "train_DoReFa_x2",
    "XNOR": "train_XNOR_x2",
    "IRNet": "train_IRNet_x2",
    "ReActNet": "train_ReActNet_x2",
    "BBCU": "train_BBCU_x2",
    "Baseline": "ablation/breakdown_baseline",
    "+Identity": "ablation/breakdown_identity",
    "+CP": "ablation/breakdown_cp",
    "+CS": "ablation/breakdown_cs",
    "+TaR&TaA (BI-DiffSR)": "ablation/breakdown_tar_taa",
}
# Options of a network's size; all others are those of the row.
SIZE = ("inner_channel", "norm_groups", "channel_mults", "res_blocks", "attn_res", "dropout", "image_size", "fp_res",
        "total_step", "zero_init", "mid_attn")  # fmt: skip


def options_of(row: str, seed: int, iterations: int, all_1_bit: bool) -> dict[str, Any]:
    """Options of the small network, with the row's network."""
    options = load_options(SMALL)
    small, network = options["network_g"], load_options(shipped_path(ROWS[row]))["network_g"]
    known = inspect.signature(getattr(archs, network["type"])).parameters
    options["network_g"] = network | {key: small[key] for key in SIZE if key in small and key in known}
    name = f"ranking_{file_name(row)}_seed{seed}_{iterations}"
    if all_1_bit and "fp_res" in known:
        options["network_g"]["fp_res"] = []
        name += "_1bit"
    return shortened(options, name, seed, iterations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11])
    parser.add_argument(
        "--all-1-bit", action="store_true", help="also binarize the outermost decoder level, here full precision"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of networks trained in parallel, one thread each")
    parser.add_argument("-o", "--output", type=Path, help="also write the table to this file")
    parser.add_argument("--append", action="store_true", help="append to the output file")
    args = parser.parse_args()

    places = [(row, seed) for seed in args.seeds for row in args.rows]
    runs = {(row, seed): options_of(row, seed, args.iterations, args.all_1_bit) for row, seed in places}
    results = dict(zip(places, train_all(list(runs.values()), args.jobs), strict=True))
    rows = [
        [row, *cost_cells(runs[row, args.seeds[0]]), *quality_cells([results[row, seed] for seed in args.seeds])]
        for row in args.rows
    ]
    data = runs[places[0]]["datasets"]["train"]
    where = "in all of the network" if args.all_1_bit else "everywhere but in the outermost decoder level"
    seeds = f"mean and half the range over the seeds {', '.join(map(str, args.seeds))}"
    conditions = (
        f"1-bit {where}; {args.iterations} iterations of {data['batch_size_per_gpu']} crops of {data['gt_size']} x "
        f"{data['gt_size']} pixels; {seeds if len(args.seeds) > 1 else f'seed {args.seeds[0]}'}; one thread per network"
    )
    head = ["row", *COST_HEAD, *quality_head(results[places[0]])]
    report(conditions, head, rows, args.output, args.append)


if __name__ == "__main__":
    main()

"""Time one sampling step on this machine: SR3 and BI-DiffSR as torch runs them, BI-DiffSR packed, SR3 with our kernels.

All networks are full size, with weights as they are before training; times do not depend on them. They take turns
within one run, and medians are reported. Peak memory is measured in a process of its own for each network: the most
that was resident while it was loaded and ran one step, less what Python and its libraries took before.
"""

import argparse
import json
import platform
import sys
from datetime import date
from typing import Any

import torch

from bidiffsr_arch.errors import InputError

EXAMPLE = "basicsr bench --size 256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", nargs="+", type=int, default=[256], metavar="N", help="height and width in pixels, or one for both"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="steps of each network (default: 7)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: torch's own choice)")
    parser.add_argument("--backend", metavar="NAME", help="numba-avx2, numba-portable or torch (default: the fastest)")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time of one thread, for a machine on which others work too (default: wall)",
    )
    parser.add_argument("--by-layer", action="store_true", help="also the rate of each kind of layer, against torch's")
    parser.add_argument("--no-memory", action="store_true", help="leave the measuring of memory out")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--markdown", action="store_true", help="print a page of Markdown")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        InputError: a size that the networks do not take, or an unknown backend.
    """
    if len(args.size) > 2 or any(n < 8 or n % 8 for n in args.size):
        raise InputError(f"expected --size to be one or two multiples of 8, got {' '.join(map(str, args.size))}")
    if args.rounds < 1 or (args.threads is not None and args.threads < 1):
        raise InputError("expected --rounds and --threads of 1 or more")
    height, width = args.size[0], args.size[-1]
    if args.clock == "cpu" and args.threads not in (None, 1):
        raise InputError(f"expected --threads 1 with --clock cpu, got {args.threads}; waiting threads take time, too")
    if args.threads or args.clock == "cpu":
        torch.set_num_threads(args.threads or 1)

    from bidiffsr_arch.bench import timing

    clock = timing.CLOCKS[args.clock]
    result = timing.measure(height, width, args.rounds, args.backend, clock, memory=not args.no_memory)
    report: dict[str, Any] = {
        "size": [height, width],
        "rounds": args.rounds,
        "clock": args.clock,
        "date": date.today().isoformat(),
        "machine": timing.machine(result.backend),
        "rows": [row._asdict() for row in result.rows],
        "ratios": result.ratios(),
    }
    if args.by_layer:
        report["layers"] = [
            layer._asdict() for layer in timing.by_layer(height, width, args.rounds, args.backend, clock)
        ]
    if args.json:
        json.dump(report, sys.stdout, indent=2)
        print()
    else:
        print(page(report) if args.markdown else "\n".join(tables(report)))


def tables(report: dict[str, Any]) -> list[str]:
    """A report as lines of Markdown tables."""
    lines = ["| network | s a step | peak memory MB | weights MB |", "|---|---|---|---|"]
    for row in report["rows"]:
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        lines.append(f"| {row['name']} | {row['seconds']:.3f} | {peak} | {row['weight_bytes'] / 1e6:.1f} |")
    lines += ["", ", ".join(f"{name} = {value:.2f}" for name, value in report["ratios"].items())]
    if "layers" in report:
        lines += [
            "",
            "| layer | map | calls | ms a step | GMAC/s | torch float32, GMAC/s | times faster |",
            "|---|---|---|---|---|---|---|",
        ]
        for layer in report["layers"]:
            lines.append(
                f"| {layer['kind']} {layer['channels']}→{layer['filters']} | {layer['height']}x{layer['width']} "
                f"| {layer['calls']} | {layer['seconds'] * 1e3:.2f} | {layer['gmacs']:.0f} "
                f"| {layer['torch_gmacs']:.0f} | {layer['gmacs'] / layer['torch_gmacs']:.1f} |"
            )
    return lines


def page(report: dict[str, Any]) -> str:
    """A report as a section that says where and when it was measured."""
    machine = report["machine"]
    head = f"## {report['size'][0]}x{report['size'][1]}"
    clock = {"wall": "time passed", "cpu": "processor time"}[report["clock"]]
    where = (
        f"{report['date']}, {machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"Numba {machine['numba']}, Python {platform.python_version()}, {machine['backend']}; "
        f"{clock}, medians of {report['rounds']} interleaved steps"
    )
    return "\n".join([head, "", where, "", *tables(report), ""])

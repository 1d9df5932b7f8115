"""Time one sampling step on this machine: SR3 and BI-DiffSR in torch, BI-DiffSR packed, SR3 with this package's float
kernels; with -opt, the network of an option file in float32 and packed.

All networks have full size and untrained weights, on which times do not depend. Their steps are interleaved within one
run, and medians are reported. Float networks are timed in both memory layouts of torch; the faster one counts. Peak
memory is measured in a separate process per network: the largest resident size while the network is loaded and runs one
step, minus the size of Python and its libraries.

With the backend numba-avx2, neither Numba nor torch uses AVX-512, so that a CPU with AVX-512 shows the times of one
without it; numba-portable uses all instructions of the CPU.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from bidiffsr_arch.errors import InputError

EXAMPLE = "basicsr bench --size 256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--size", nargs="+", type=int, default=[256], metavar="N", help="height and width in pixels, or one for both"
    )
    parser.add_argument("-opt", metavar="FILE", help="option file (YAML) of a network that can be packed")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="steps of each network (default: 7)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: torch's own choice)")
    parser.add_argument(
        "--backend",
        nargs="+",
        metavar="NAME",
        help="numba-avx2, numba-portable or torch, one or several (default: the fastest)",
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time of one thread, for a shared machine (default: wall)",
    )
    parser.add_argument("--by-layer", action="store_true", help="also report rates of layers, beside torch's")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--markdown", action="store_true", help="print a page of Markdown")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        InputError: a size that the networks do not support, an option file without a network that can be packed, or an
            unknown backend.
    """
    if len(args.size) > 2 or min(args.size) < 1:
        raise InputError(f"expected --size to be one or two numbers of pixels, got {' '.join(map(str, args.size))}")
    if args.rounds < 1 or (args.threads is not None and args.threads < 1):
        raise InputError("expected --rounds and --threads of 1 or more")
    if args.clock == "cpu" and args.threads not in (None, 1):
        raise InputError(f"expected --threads 1 with --clock cpu, got {args.threads}, whose waiting costs time, too")

    import torch

    if args.threads or args.clock == "cpu":
        torch.set_num_threads(args.threads or 1)
    reports = [measured(args, backend) for backend in args.backend or [None]]
    if args.json:
        json.dump(reports if len(reports) > 1 else reports[0], sys.stdout, indent=2)
        print()
    else:
        show = page if args.markdown else lambda report: "\n".join(tables(report))
        print("\n\n".join(map(show, reports)))


def measured(args: argparse.Namespace, backend: str | None) -> dict[str, Any]:
    """The report of one backend."""
    from bidiffsr_arch.bench import timing
    from bidiffsr_arch.packed.backends import choose_backend

    choose_backend(backend)  # refuses an unknown name before anything is timed
    subjects: Sequence[timing.Subject] = timing.DIFFUSION
    if args.opt is not None:
        subjects = timing.subjects_of(network_of(args.opt))
    size = (args.size[0], args.size[-1])
    result = timing.measure(
        timing.Settings(subjects, size, args.rounds, backend, args.clock, not args.no_memory, args.by_layer)
    )
    report: dict[str, Any] = {
        "size": list(size),
        "rounds": args.rounds,
        "clock": args.clock,
        "date": date.today().isoformat(),
        "machine": result.machine,
        "rows": [row._asdict() for row in result.rows],
        "ratios": result.ratios(),
    }
    if args.by_layer:
        report["layers"] = [layer._asdict() for layer in result.layers]
    return report


def network_of(option_file: str) -> Mapping[str, Any]:
    """The network of an option file.

    Raises:
        InputError: there is none, it cannot be packed, or a plugin of the file cannot be imported.
    """
    from bidiffsr_arch.config.file import AnyFile, load_options
    from bidiffsr_arch.packed.registry import architecture_named
    from bidiffsr_arch.plugins import import_plugins

    options = load_options(option_file)
    network_g = AnyFile.read(options, option_file).network_g
    if network_g is None:
        raise InputError(f"{option_file}: expected a `network_g:` block, found none")
    import_plugins((), options)
    architecture_named(network_g.type)
    return network_g.arguments()


def tables(report: dict[str, Any]) -> list[str]:
    """A report as lines of Markdown tables."""
    lines = ["| network | s per step | peak memory MB | weights MB |", "|---|---|---|---|"]
    for row in report["rows"]:
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        lines.append(f"| {row['name']} | {row['seconds']:.3f} | {peak} | {row['weight_bytes'] / 1e6:.1f} |")
    lines += ["", ", ".join(f"{name} = {value:.2f}" for name, value in report["ratios"].items())]
    if "layers" in report:
        lines += [
            "",
            "| layer | map | calls | ms per step | GMAC/s | torch float32, GMAC/s | times faster |",
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
        f"{report['date']}, {machine['cpu']}, {machine['instructions']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, Numba {machine['numba']}, Python {platform.python_version()}, "
        f"{machine['backend']}; {clock}, medians of {report['rounds']} interleaved steps"
    )
    return "\n".join([head, "", where, "", *tables(report), ""])

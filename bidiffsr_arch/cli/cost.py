"""Count the parameters and operations of the networks in option files by the paper's rules.

Params = full precision + binary / 32, in M. OPs = full precision + binary / 64, in G, for one pass of a network (of a
diffusion network: one sampling step). The paper's figures are printed beside them. Nothing is computed and no
checkpoint is read: it needs no GPU, and about a second per network.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.plugins import add_plugin_argument, import_plugins

EXAMPLE = "basicsr cost -opt options/test_SR3_x4.yml options/test_BIDiffSR_x4.yml --input-size 256 256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Option files, input size and output format."""
    parser.add_argument("-opt", required=True, nargs="+", metavar="FILE", help="option files (YAML)")
    parser.add_argument(
        "--input-size", nargs=2, type=int, default=[256, 256], metavar=("H", "W"),
        help="size of the input images (default 256 256), before upsampling if the network upsamples",
    )  # fmt: skip
    add_plugin_argument(parser)
    parser.add_argument("--by-module", action="store_true", help="also print every module, submodules included")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON and nothing else")
    form.add_argument("--markdown", action="store_true", help="print docs/cost.md")


def run(args: argparse.Namespace) -> None:
    """Count and print.

    Raises:
        InputError: options that exclude each other, a wrong option file, or a network that cannot be built or does not
            run at that size.
    """
    if args.markdown and args.by_module:
        raise InputError("expected --by-module with the plain table or --json, got --markdown; leave one out")
    from tqdm import tqdm

    from bidiffsr_arch.cli.cost_table import as_json, as_page, as_text, count_file, remarks

    import_plugins(args.plugin, {})
    with redirect_stdout(sys.stderr):  # some networks print when they are built
        rows = [count_file(file, args.input_size) for file in tqdm(args.opt, unit="network", leave=False, disable=None)]
    if args.json:
        print(json.dumps([as_json(row, args.by_module) for row in rows], indent=2))
        for row in rows:
            print(*remarks(row), sep="\n", end="\n" if remarks(row) else "", file=sys.stderr)
    elif args.markdown:
        print(as_page(rows, args.input_size), end="")
    else:
        print(as_text(rows, args.by_module))

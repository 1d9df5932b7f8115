"""Export a float network for other runtimes: as ONNX, or as a program of torch.export.

The file computes one call of the network, (x_t, condition, time) -> prediction, or image -> result for a network
without diffusion. Batch size, height and width are dynamic; height and width must be multiples of a number that the
command prints. The file contains the network's description. Before it is written, it is compared with the network: ONNX
by onnxruntime, if that is installed.

onnx  needs onnx and onnxscript, the extra `export` (docs/install.md)
pt2   for torch.export.load; needs nothing more
"""

import argparse
from pathlib import Path

from bidiffsr_arch.errors import install_extra

EXAMPLE = "basicsr export net_g_latest.pth -opt options/test_BIDiffSR_x4.yml --format onnx"
KINDS = ("onnx", "pt2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add(
        "weights",
        metavar="FILE",
        help="float weights: a .pth of training, a .safetensors, a folder, or hf://OWNER/NAME",
    )
    add("-opt", metavar="FILE", help="option file (YAML) of their training, if they contain no description")
    add("--format", choices=KINDS, default=KINDS[0], help="kind of the file (default: %(default)s)")
    add("-o", "--output", metavar="FILE", help="name of the file (default: that of the weights, in the current folder)")
    add("--overwrite", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> None:
    """Read weights, export and check them.

    Raises:
        InputError: packed or unreadable weights, or an existing file.
        CheckFailed: what was exported differs from the network.
    """
    output = Path(args.output or f"{default_name(args.weights)}.{args.format}").expanduser()
    from bidiffsr_arch.files import refuse_existing

    refuse_existing(output, args.overwrite)

    from bidiffsr_arch.export import FORMATS, SIZES, export, times
    from bidiffsr_arch.networks import load_weights

    weights = load_weights(args.weights, args.opt)
    difference = export(weights, output, args.format, overwrite=args.overwrite)
    runtime = FORMATS[args.format].runtime
    print(f"wrote {output}: {output.stat().st_size / 1e6:.2f} MB, height and width in multiples of {weights.multiple}")
    if difference is None:
        print(f"not checked: {runtime} is not installed; {install_extra('export')}")
    else:
        print(f"checked with {runtime}: {len(SIZES)} sizes, {len(times(weights))} timesteps, "
              f"largest difference {difference:.1e}")  # fmt: skip


def default_name(weights: str) -> str:
    """The weights' name without folder, address and ending, for a file in the current folder."""
    name = weights.rstrip("/").removesuffix(".pth").removesuffix(".safetensors")
    return Path(name.partition("@")[0] if name.startswith("hf://") else name).expanduser().resolve().name

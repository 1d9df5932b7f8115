"""Pack a trained network for 1-bit inference into one file, with 1 bit per binary weight.

The file needs no option file: it contains the architecture, the scale, the noise schedule and what is diffused. Use it
as `--weights` of `basicsr upscale`, or as `path: pretrain_network_g:` of an option file for testing. If the checkpoint
has an averaged network (`params_ema`), that one is packed.
"""

import argparse
from pathlib import Path
from typing import Any

from bidiffsr_arch.errors import InputError

EXAMPLE = "basicsr pack net_g_latest.pth -opt options/test_BIDiffSR_x4.yml -o BIDiffSR_x4.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, option file and output."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint saved by training (.pth)")
    parser.add_argument("-opt", required=True, metavar="FILE", help="option file (YAML) of this network")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.safetensors", help="the packed network")
    parser.add_argument("--half", action="store_true", help="store real numbers as float16: a third smaller, not exact")
    parser.add_argument("--params", choices=["params", "params_ema"], help="which network of the checkpoint to pack")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> None:
    """Read a checkpoint, pack it, write it.

    Raises:
        InputError: checkpoint and option file do not match, or the output exists.
    """
    output = Path(args.output).expanduser()
    if output.suffix != ".safetensors":
        raise InputError(f"expected an output that ends in .safetensors, got {args.output}")
    if output.exists() and not args.overwrite:
        raise InputError(f"expected a new file, but {output} exists; choose another name or add --overwrite")

    from bidiffsr_arch.config.diffusion import Trained
    from bidiffsr_arch.config.file import AnyFile, load_options
    from bidiffsr_arch.diffusion.super_resolution import SuperResolution
    from bidiffsr_arch.files import digest
    from bidiffsr_arch.networks import build_network, is_direct
    from bidiffsr_arch.packed import Description, pack, save_packed
    from bidiffsr_arch.packed.registry import architecture_named
    from bidiffsr_arch.parameters import load_parameters
    from bidiffsr_arch.plugins import import_plugins

    options = load_options(args.opt)
    import_plugins((), options)
    block = AnyFile.read(options, args.opt).network_g
    if block is None:
        raise InputError(f"{args.opt}: expected a `network_g:` block, found none")
    architecture_named(block.type)
    network_g = block.arguments()
    network = build_network(network_g)
    found = load_parameters(network, args.checkpoint, args.params or "params_ema", args.opt)
    if args.params and found != args.params:
        raise InputError(
            f"expected {args.params} in {args.checkpoint}, it has {found}; leave --params out to take that"
        )
    packed = pack(network, "torch")
    trained = Trained.part_of(options, args.opt)
    given: dict[str, Any] = {"scale": trained.scale}
    if not is_direct(network):
        SuperResolution(trained)  # refuses a schedule that diffusers does not take
        given = trained.model_dump() | {"steps": trained.beta_schedule.num_inference_steps}
    description = Description(
        network_g=network_g,
        **given,
        source=Path(args.checkpoint).name,
        source_sha256=digest(args.checkpoint),
        params=found,
    )
    size = save_packed(packed, output, description, half=args.half, overwrite=args.overwrite)
    before = Path(args.checkpoint).stat().st_size
    print(f"wrote {output}: {size / 1e6:.2f} MB, {before / size:.1f} times less than {args.checkpoint} ({found})")

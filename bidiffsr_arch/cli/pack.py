"""Pack a trained network for 1-bit inference into one file, with 1 bit per binary weight.

The file needs no option file: it contains the architecture, the scale, the noise schedule and what is diffused. Use it
as `--weights` of `basicsr upscale`, or as `path: pretrain_network_g:` of an option file for testing. If the checkpoint
has an averaged network (`params_ema`), that one is packed.

sets:
  a file may contain two sets of parameters, for `basicsr upscale --quality fidelity` and `perceptual`. CHECKPOINT is
  the first, fidelity. --set perceptual=FILE adds the second, whose number of steps, noise schedule and other options
  are those of FILE; tensors that are equal in both are stored once.

packed files:
  CHECKPOINT and FILE may be packed already. They contain their options, and CHECKPOINT all of its sets.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidiffsr_arch.config.qualities import FIRST, QUALITIES
from bidiffsr_arch.errors import InputError

if TYPE_CHECKING:
    from bidiffsr_arch.packed.file_format import Sets

EXAMPLE = "basicsr pack net_g_latest.pth -opt options/test_BIDiffSR_x4.yml -o BIDiffSR_x4.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, option file, further sets and output."""
    further = [quality for quality in QUALITIES if quality != FIRST]
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint of training (.pth), or a packed file")
    parser.add_argument(
        "-opt", metavar="FILE", help="option file (YAML) of its network (default: the checkpoint's description)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.safetensors", help="the packed network")
    parser.add_argument(
        "--set", action="append", default=[], metavar="QUALITY=FILE",
        help=f"a further set of parameters, as in --set {further[0]}=net_4_steps.pth; FILE has a description, or its "
        "option file beside it",
    )  # fmt: skip
    parser.add_argument("--half", action="store_true", help="store real numbers as float16: a third smaller, not exact")
    parser.add_argument("--params", choices=["params", "params_ema"], help="which network of checkpoints to pack")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> None:
    """Read checkpoints, pack them, write them.

    Raises:
        InputError: checkpoint and option file do not match, sets do not go together, or the output exists.
    """
    output = Path(os.path.expanduser(args.output))
    if output.suffix != ".safetensors":
        raise InputError(f"expected an output that ends in .safetensors, got {args.output}")
    from bidiffsr_arch.files import refuse_existing

    refuse_existing(output, args.overwrite)
    files = further_files(args.set)

    from bidiffsr_arch.packed import save_packed

    sets = dict(packed_sets(args.checkpoint, args.opt, args.params))
    for quality, file in files.items():
        found = packed_sets(file, None, args.params)
        sets[quality] = found.get(quality, found[FIRST])
    (network, description), *_ = sets.values()
    further = {quality: entry for quality, entry in sets.items() if quality != FIRST}
    size = save_packed(network, output, description, sets=further, half=args.half, overwrite=args.overwrite)
    for quality, (_, stored) in sets.items():
        known, count = "steps" in stored.model_fields_set, stored.steps
        steps = f", {count} {'step' if count == 1 else 'steps'}" if known else ""
        print(f"{quality}: {stored.source} ({stored.params}){steps}")
    before = sum(Path(file).stat().st_size for file in (args.checkpoint, *files.values()))
    print(f"wrote {output}: {size / 1e6:.2f} MB, {before / size:.1f} times smaller than the original")


def further_files(entries: list[str]) -> dict[str, str]:
    """Files of further sets by quality.

    Raises:
        InputError: an entry is not ``QUALITY=FILE``, or a quality has several files.
    """
    files: dict[str, str] = {}
    for entry in entries:
        quality, _, file = entry.partition("=")
        known = [name for name in QUALITIES if name != FIRST]
        if quality not in known or not file:
            raise InputError(f"expected --set {'|'.join(known)}=FILE, got {entry}; CHECKPOINT is the set {FIRST}")
        if quality in files:
            raise InputError(f"expected one file for the set {quality}, got {files[quality]} and {file}")
        files[quality] = file
    return files


def packed_sets(file: str, option_file: str | None, params: str | None) -> "Sets":
    """The packed networks of a file: that of a checkpoint, or all sets of a packed file.

    Raises:
        InputError: the file cannot be read, its options are unknown or do not match, or options are given for a packed
            file.
    """
    from bidiffsr_arch.networks import is_packed
    from bidiffsr_arch.packed import load_sets

    if not is_packed(file):
        return {FIRST: packed_checkpoint(Path(file), option_file, params)}
    if option_file or params:
        option = "-opt" if option_file else "--params"
        raise InputError(f"expected no {option} with {file}: a packed network contains its options")
    return load_sets(file, "torch")


def packed_checkpoint(checkpoint: Path, option_file: str | None, params: str | None) -> tuple[Any, Any]:
    """Pack the network of a checkpoint; returns it with its description."""
    from bidiffsr_arch.config.diffusion import Description, DiffusionOptions
    from bidiffsr_arch.config.file import Network
    from bidiffsr_arch.diffusion.super_resolution import SuperResolution
    from bidiffsr_arch.files import digest
    from bidiffsr_arch.networks import build_network, checkpoint_options, is_direct
    from bidiffsr_arch.packed import pack
    from bidiffsr_arch.packed.registry import architecture_named
    from bidiffsr_arch.parameters import load_parameters
    from bidiffsr_arch.plugins import import_plugins

    options, source = checkpoint_options(checkpoint, option_file)
    import_plugins((), options)
    block = Network.read(options["network_g"], str(source), "network_g")
    architecture_named(block.type)
    network_g = block.arguments()
    network = build_network(network_g)
    found = load_parameters(network, checkpoint, params or "params_ema", source)
    if params and found != params:
        raise InputError(f"expected {params} in {checkpoint}, found {found}; leave --params out to use that")
    trained = DiffusionOptions.part_of(options, str(source))
    given: dict[str, Any] = {"scale": trained.scale}
    if not is_direct(network):
        SuperResolution(trained)  # refuses a schedule that diffusers does not take
        given = trained.model_dump() | {"steps": trained.beta_schedule.num_inference_steps}
    sources = {"source": checkpoint.name, "source_sha256": digest(checkpoint), "params": found}
    return pack(network, "torch"), Description(network_g=network_g, **given, **sources)

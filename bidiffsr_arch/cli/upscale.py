"""Upscale images with trained weights.

Reads PNG, JPEG, WebP, TIFF, BMP and AVIF with 8 or 16 bits, gray or colour, with or without alpha. Results keep the
image's name, format, orientation, colours and metadata; dropped metadata is reported. Images may have any size: the
network runs on tiles, so its memory does not grow with the image. An image that cannot be upscaled does not stop the
others and is named at the end. Existing results are kept: start a stopped run again to continue it.

weights:
  without --weights, the small network that comes with the package, selected by --scale 2 or --scale 4; or
  a .pth of `basicsr train` with its option file (-opt; for a .pth in experiments/NAME/models, the copy that training
  wrote to experiments/NAME is found automatically); or a .safetensors of `basicsr pack`; or a folder of
  save_pretrained; or hf://OWNER/NAME, a network on the Hugging Face Hub. Files with a description need no option file.

quality:
  a .safetensors of `basicsr pack` may contain two sets of parameters, each with its own number of steps: fidelity,
  closest to the true image, and perceptual, which is sharper and partly invents fine textures. --quality selects one;
  without it, the first is used. A file with one set has fidelity.
"""

import argparse
import io
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from bidiffsr_arch.config.qualities import QUALITIES
from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.upscale import AUTO, OVERLAP
from bidiffsr_arch.weights import INPUTS, SHIPPED, shipped_weights

EXAMPLE = "basicsr upscale photo.jpg holidays/ -o large --scale 2"
SCALE, INPUT = 2, "clean"  # of the package's own weights, by default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Images, weights, sampling, tiles and device."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE|FOLDER", help="images, or folders of images, such as photo.jpg holidays/")
    add("-o", "--output", required=True, metavar="FOLDER", help="folder of the results, such as -o large")
    add("--weights", metavar="FILE",
        help="trained weights, such as --weights net_g_latest.pth (default: the package's own)")  # fmt: skip
    add("-opt", metavar="FILE", help="option file of their training, such as -opt options/train_BIDiffSR_x2.yml")
    add("--scale", type=int, metavar="N",
        help="which of the package's weights, 2 or 4 (default: 2); with --weights, refuse another scale")  # fmt: skip
    add("--input", metavar="KIND",
        help=f"which of the package's weights, by the images that they are for: "
        f"{'; '.join(f'{kind}, {INPUTS[kind]}' for kind in SHIPPED)} (default: {INPUT})")  # fmt: skip
    add("--quality", choices=QUALITIES, help="which of a file's sets of parameters (default: its first)")
    add("--steps", type=int, metavar="N", help="sampling steps, such as --steps 10 (default: as in the options)")
    add("--sampler", metavar="NAME", help="diffusers scheduler, such as --sampler UniPCMultistep (default: likewise)")
    add("--seed", type=int, default=0, metavar="S", help="seed of the noise, such as --seed 7 (default: %(default)s)")
    add("--tile", type=int, metavar="PX",
        help="largest side of tiles in result pixels, such as 256; 0: none (default: by the network)")  # fmt: skip
    add("--overlap", type=int, default=OVERLAP, metavar="PX",
        help="their overlap in result pixels, such as --overlap 32 (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", metavar="NAME", help="such as --device cpu or cuda:1 (default: %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--float", dest="packed", action="store_false", default=None, help="compute in float (a .pth)")
    form.add_argument("--packed", dest="packed", action="store_true", help="compute with 1-bit weights (CPU)")
    add("--recursive", action="store_true", help="include subfolders; results keep their tree")
    add("--overwrite", action="store_true", help="replace existing results")
    add("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> None:
    """Upscale images.

    Raises:
        InputError: an argument is wrong (then nothing was written), or some images could not be upscaled (the others
            were).
    """
    # Hides messages of libraries (compiling of kernels, Pillow's warnings); errors are printed afterwards.
    with redirect_stderr(io.StringIO()) if args.quiet else nullcontext():
        failures = upscale(args)
    raise_all(failures)


def upscale(args: argparse.Namespace) -> list[InputError]:
    """Upscale images; returns an error for each image that could not be upscaled."""
    from bidiffsr_arch.upscale.plan import plan, prepare_folder

    planned = plan(args.images, args.output, args.overwrite, args.recursive)
    if args.weights is not None and args.input is not None:
        raise InputError(f"expected --input without --weights, which are {args.weights}; leave one of them out")
    weights = own_weights(args) if args.weights is None else args.weights
    from bidiffsr_arch.upscale import Upscaler
    from bidiffsr_arch.upscale.batch import upscale_all

    upscaler = Upscaler.from_file(
        weights, args.opt, packed=args.packed, quality=args.quality, device=args.device, sampler=args.sampler,
        steps=args.steps, seed=args.seed, tile=AUTO if args.tile is None else args.tile or None, overlap=args.overlap,
    )  # fmt: skip
    if args.scale is not None and args.scale != upscaler.scale:
        raise InputError(f"expected weights of x{args.scale}, got {weights}, trained for x{upscaler.scale}")
    planned.refuse_too_large(upscaler.scale)
    prepare_folder(args.output)
    failures = upscale_all(upscaler, planned.jobs, args.quiet)
    if not args.quiet:
        done, kept = len(planned.jobs) - len(failures), len(planned.kept)
        note = f"; {kept} existed and were kept (--overwrite replaces them)" if kept else ""
        print(f"{done} {'image' if done == 1 else 'images'} upscaled by {upscaler.scale} in {args.output}{note}")
        if planned.left_out:
            print(f"left out: {planned.left_out}")
    return planned.failures + failures


def own_weights(args: argparse.Namespace) -> Path:
    """The package's own weights; prints their name unless --quiet.

    Raises:
        InputError: scale or kind of input have none, or -opt or --float is given, which need a checkpoint.
    """
    if args.opt is not None or args.packed is False:
        option = "--float" if args.opt is None else "-opt"
        raise InputError(f"expected --weights with {option}, a .pth of training, got none")
    weights = shipped_weights(SCALE if args.scale is None else args.scale, args.input or INPUT)
    if not args.quiet:
        print(f"using {weights.stem}, which comes with the package; --weights FILE selects others")
    return weights

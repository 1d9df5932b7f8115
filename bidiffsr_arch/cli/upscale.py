"""Upscale images with trained weights.

Takes PNG, JPEG, WebP, TIFF, BMP and AVIF: 8 or 16 bits, gray or colour, with or without alpha. Results keep their
images' names, formats, orientation, colours and metadata; what cannot be kept is named. Images of any size fit into
memory, since the network sees them in tiles. An image that cannot be upscaled does not stop the others; it is named at
the end. A result that exists is kept, so that a stopped run goes on where it was when it is started again.

weights:
  without --weights, the small network that comes with the package, which --scale 2 or --scale 4 chooses; or
  a .pth that `basicsr train` wrote, with its option file (-opt; where the .pth lies in experiments/NAME/models, the
  option file that training laid in experiments/NAME is found by itself), or a .safetensors of `basicsr pack`.
"""

import argparse
import io
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.upscale import OVERLAP, TILE

EXAMPLE = "basicsr upscale photo.jpg holidays/ -o large --scale 2"
SCALE = 2  # of the package's own weights, where none is asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE|FOLDER", help="images, or folders of them, as in photo.jpg holidays/")
    add("-o", "--output", required=True, metavar="FOLDER", help="where results go, as in -o large")
    add("--weights", metavar="FILE",
        help="trained weights, as in --weights net_g_latest.pth (default: the package's own)")  # fmt: skip
    add("-opt", metavar="FILE", help="what the weights were trained with, as in -opt options/train_BIDiffSR_x2.yml")
    add("--scale", type=int, metavar="N",
        help="which of the package's weights, 2 or 4 (default: 2); with --weights, refuse another scale")  # fmt: skip
    add("--steps", type=int, metavar="N", help="sampling steps, as in --steps 10 (default: what the options say)")
    add("--sampler", metavar="NAME", help="diffusers' scheduler, as in --sampler UniPCMultistep (default: likewise)")
    add("--seed", type=int, default=0, metavar="S", help="of the noise, as in --seed 7 (default: %(default)s)")
    add("--tile", type=int, default=TILE, metavar="PX",
        help="most result pixels of a tile's side, as in --tile 256; 0: no tiles (default: %(default)s)")  # fmt: skip
    add("--overlap", type=int, default=OVERLAP, metavar="PX",
        help="result pixels that tiles share, as in --overlap 32 (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", metavar="NAME", help="as in --device cpu or --device cuda:1 (default: %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--float", dest="packed", action="store_false", default=None, help="compute in float (a .pth)")
    form.add_argument("--packed", dest="packed", action="store_true", help="compute with 1-bit weights (CPU)")
    add("--recursive", action="store_true", help="folders within folders, too; results keep their tree")
    add("--overwrite", action="store_true", help="results that exist are made again")
    add("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> None:
    """Upscale.

    Raises:
        InputError: something given is wrong (nothing was written then), or images could not be upscaled (the others
            are done).
    """
    # What others say on the way (Numba's kernels being compiled, Pillow's warnings); errors are printed after this.
    with redirect_stderr(io.StringIO()) if args.quiet else nullcontext():
        failures = upscale(args)
    raise_all(failures)


def upscale(args: argparse.Namespace) -> list[InputError]:
    """As `run`.

    Returns:
        What was wrong with images that could not be upscaled.
    """
    from bidiffsr_arch.upscale.plan import plan, prepare_folder

    planned = plan(args.images, args.output, args.overwrite, args.recursive)
    weights = own_weights(args) if args.weights is None else args.weights
    from bidiffsr_arch.upscale import Upscaler
    from bidiffsr_arch.upscale.batch import upscale_all

    upscaler = Upscaler.from_file(
        weights, args.opt, packed=args.packed, device=args.device, sampler=args.sampler, steps=args.steps,
        seed=args.seed, tile=args.tile or None, overlap=args.overlap,
    )  # fmt: skip
    if args.scale is not None and args.scale != upscaler.scale:
        raise InputError(f"expected weights of x{args.scale}, got {weights}, trained for x{upscaler.scale}")
    planned.refuse_too_large(upscaler.scale)
    prepare_folder(args.output)
    failures = upscale_all(upscaler, planned.jobs, args.quiet)
    if not args.quiet:
        done, kept = len(planned.jobs) - len(failures), len(planned.kept)
        note = f"; {kept} existed and stay (--overwrite makes them again)" if kept else ""
        print(f"{done} {'image' if done == 1 else 'images'} upscaled by {upscaler.scale} in {args.output}{note}")
        if planned.left_out:
            print(f"left out: {planned.left_out}")
    return planned.failures + failures


def own_weights(args: argparse.Namespace) -> Path:
    """The package's own weights, which is said unless --quiet.

    Raises:
        InputError: there are none for the scale, or an option needs a checkpoint.
    """
    from bidiffsr_arch.weights import shipped_weights

    if args.opt is not None or args.packed is False:
        option = "--float" if args.opt is None else "-opt"
        raise InputError(f"expected --weights with {option}, a .pth of training, got none")
    weights = shipped_weights(SCALE if args.scale is None else args.scale)
    if not args.quiet:
        print(f"with {weights.stem}, which comes with the package; --weights FILE takes others")
    return weights

"""Prepare training images, and download weights for LPIPS.

demo           write the demo's photographs (HR, and LR at x2 and x4) without a download
lpips-weights  download AlexNet's weights for the LPIPS metric
pairs          make HR and LR training images from your own photographs
subimages      cut pairs of large images, such as DF2K's, into subimages that load faster
lmdb           pack a folder of images into one database for io_backend: lmdb

pairs, subimages and lmdb continue after an interruption.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

EXAMPLE = "basicsr data demo -o datasets/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subparser per action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    demo = actions.add_parser("demo", help="the demo's photographs", epilog=f"example: {EXAMPLE}")
    demo.add_argument("-o", "--output", metavar="FOLDER", default="datasets/demo", help="default: %(default)s")
    demo.add_argument("--overwrite", action="store_true", help="replace existing images")
    demo.set_defaults(action=write_demo)
    weights = actions.add_parser(
        "lpips-weights", help="AlexNet's weights for LPIPS", epilog="example: basicsr data lpips-weights"
    )
    weights.add_argument("-o", "--output", metavar="FILE", help="default: where the metric finds it")
    weights.set_defaults(action=fetch_lpips_weights)
    pairs = actions.add_parser(
        "pairs",
        help="HR and LR images from photographs",
        epilog="example: basicsr data pairs photos/ holiday.jpg --scale 2 4 --reduce 2 -o datasets/photographs",
    )
    pairs.add_argument("photographs", nargs="+", metavar="IMAGE|FOLDER", type=Path)
    pairs.add_argument("--scale", nargs="+", type=int, default=[2, 4], help="scale factors of HR to LR (%(default)s)")
    pairs.add_argument("--reduce", type=int, default=1, metavar="N",
                       help="first downsample them by N, which removes JPEG artefacts (%(default)s)")  # fmt: skip
    pairs.add_argument("--jpeg", nargs=2, type=int, metavar=("LOW", "HIGH"),
                       help="JPEG-compress LR with a quality per image between these; in LR_jpeg/")  # fmt: skip
    pairs.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    pairs.add_argument("-o", "--output", metavar="FOLDER", type=Path, required=True)
    pairs.set_defaults(action=write_pairs)
    squares = actions.add_parser(
        "subimages",
        help="cut pairs of images into subimages",
        epilog="example: basicsr data subimages --hr datasets/DF2K/HR --lr datasets/DF2K/LR_bicubic/X4 --scale 4 "
        "-o datasets/DF2K_sub",
    )
    squares.add_argument("--hr", metavar="FOLDER", type=Path, required=True, help="the images")
    squares.add_argument("--lr", metavar="FOLDER", type=Path, required=True, help="the same, SCALE times smaller")
    squares.add_argument("--scale", type=int, required=True)
    squares.add_argument("--size", type=int, default=480, help="side of a subimage in HR pixels (%(default)s)")
    squares.add_argument("--step", type=int, default=240, help="distance of subimages in HR pixels (%(default)s)")
    squares.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    squares.add_argument("-o", "--output", metavar="FOLDER", type=Path, required=True)
    squares.set_defaults(action=write_subimages)
    packed = actions.add_parser(
        "lmdb",
        help="pack a folder of images into an LMDB",
        epilog="example: basicsr data lmdb datasets/DF2K_sub/LR_bicubic/X4 --suffix x4 -o datasets/DF2K_sub_X4.lmdb",
    )
    packed.add_argument("folder", metavar="FOLDER", type=Path)
    packed.add_argument("--suffix", default="", help="suffix that LR names have and HR names do not, such as x4")
    packed.add_argument("-o", "--output", metavar="NAME.lmdb", type=Path, required=True)
    packed.set_defaults(action=write_lmdb)


def write_demo(args: argparse.Namespace) -> None:
    """Write the demo's photographs."""
    from bidiffsr_arch.data import demo

    demo.write_demo(args.output, overwrite=args.overwrite)
    print(f"photographs in {args.output}")


def fetch_lpips_weights(args: argparse.Namespace) -> None:
    """Download, check and convert AlexNet's weights."""
    from bidiffsr_arch.metrics import lpips_weights

    print(f"weights in {lpips_weights.fetch(args.output)}")


def write_pairs(args: argparse.Namespace) -> None:
    """Make HR and LR images from photographs."""
    from bidiffsr_arch.data import pairs

    settings = pairs.PairSettings(args.scale, args.reduce, None if args.jpeg is None else tuple(args.jpeg))
    count = pairs.write_pairs(args.photographs, args.output, settings, args.workers)
    print(f"{count} pairs of images in {args.output}")


def write_subimages(args: argparse.Namespace) -> None:
    """Cut pairs of images into subimages."""
    from bidiffsr_arch.data import subimages

    cut = subimages.Cut(args.scale, args.size, args.step)
    count = subimages.write_subimages(args.hr, args.lr, args.output, cut, args.workers)
    print(f"{count} pairs of subimages in {args.output}")


def write_lmdb(args: argparse.Namespace) -> None:
    """Pack a folder of images."""
    from bidiffsr_arch.data import lmdb

    print(f"{lmdb.write_lmdb(args.folder, args.output, args.suffix)} images in {args.output}")


def run(args: argparse.Namespace) -> None:
    """Run ACTION, and report at the end which files of folders were left out."""
    from bidiffsr_arch.data.folders import LeftOut

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeftOut)
        try:
            args.action(args)
        finally:
            for warning in caught:
                print(warning.message, file=sys.stderr)

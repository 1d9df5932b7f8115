"""Pictures and weights that cannot lie in the repository.

demo           write photographs (HR, LR at x2 and x4) to train and validate the demo on; no download
lpips-weights  fetch AlexNet's weights, so that the LPIPS metric works
"""

import argparse

EXAMPLE = "basicsr data demo -o datasets/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    demo = actions.add_parser("demo", help="the demo's photographs", epilog=f"example: {EXAMPLE}")
    demo.add_argument("-o", "--output", metavar="FOLDER", default="datasets/demo", help="default: %(default)s")
    demo.add_argument("--overwrite", action="store_true", help="pictures that exist are replaced")
    demo.set_defaults(action=write_demo)
    weights = actions.add_parser(
        "lpips-weights", help="AlexNet's weights for LPIPS", epilog="example: basicsr data lpips-weights"
    )
    weights.add_argument("-o", "--output", metavar="FILE", help="default: where the metric looks by itself")
    weights.set_defaults(action=fetch_lpips_weights)


def write_demo(args: argparse.Namespace) -> None:
    """Write the demo's photographs."""
    from bidiffsr_arch.data import demo

    demo.write_demo(args.output, overwrite=args.overwrite)
    print(f"photographs in {args.output}")


def fetch_lpips_weights(args: argparse.Namespace) -> None:
    """Fetch, check and convert AlexNet's weights."""
    from bidiffsr_arch.data import lpips_weights

    print(f"weights in {lpips_weights.fetch(args.output)}")


def run(args: argparse.Namespace) -> None:
    """Do what ACTION says."""
    args.action(args)

"""Draw figures of a network's layers and results as PNG; those of layers follow the paper.

activations  distribution of a 1-bit convolution's input over the timesteps (Figure 4)
ranges       channel ranges before and after the channel shuffle of a skip connection (Figure 6)
biases       the K biases of a 1-bit convolution, one per timestep group (Figure 7)
trajectory   x_t at several timesteps of one sampling, from noise to image
curves       losses and metrics of a training run
strip        LR, bicubic, result and HR of the images in a folder

Needs matplotlib, the extra `plot` (docs/install.md). `basicsr plot FIGURE --help` lists a figure's options.
"""

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bidiffsr_arch.errors import InputError, install_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bidiffsr_arch.plots.probe import Probe
    from bidiffsr_arch.upscale import Upscaler

EXAMPLE = "basicsr plot biases --weights experiments/my_x2/models/net_g_latest.pth -o biases.png"
DPI = 110


def probe(args: argparse.Namespace) -> "Probe":
    """The float network and the photograph of the arguments."""
    from bidiffsr_arch.networks import load_weights
    from bidiffsr_arch.plots.probe import Probe, photograph

    image = photograph(Path(args.image), args.crop)
    return Probe(load_weights(args.weights, args.opt, packed=False), image, args.seed)


def upscaler(args: argparse.Namespace) -> "Upscaler":
    """The upscaler of the arguments."""
    from bidiffsr_arch.upscale import Upscaler

    return Upscaler.from_file(args.weights, args.opt, sampler=args.sampler, steps=args.steps, seed=args.seed)


def draw_activations(args: argparse.Namespace) -> "Figure":
    """See `plots.layers.activations`."""
    from bidiffsr_arch.plots.layers import activations

    return activations(probe(args), args.layer)


def draw_ranges(args: argparse.Namespace) -> "Figure":
    """See `plots.layers.shuffle_ranges`."""
    from bidiffsr_arch.plots.layers import shuffle_ranges

    return shuffle_ranges(probe(args), args.layer)


def draw_biases(args: argparse.Namespace) -> "Figure":
    """See `plots.layers.timestep_biases`."""
    from bidiffsr_arch.networks import load_weights
    from bidiffsr_arch.plots.layers import timestep_biases

    return timestep_biases(load_weights(args.weights, args.opt, packed=False).network, args.layer)


def draw_trajectory(args: argparse.Namespace) -> "Figure":
    """See `plots.images.trajectory`."""
    from bidiffsr_arch.plots.images import trajectory
    from bidiffsr_arch.plots.probe import photograph

    return trajectory(upscaler(args), photograph(Path(args.image), args.crop))


def draw_curves(args: argparse.Namespace) -> "Figure":
    """See `plots.curves.curves`."""
    from bidiffsr_arch.plots.curves import curves, read_series

    return curves(read_series(Path(args.source)), Path(args.source).resolve().name)


def draw_strip(args: argparse.Namespace) -> "Figure":
    """See `plots.images.comparison`."""
    from bidiffsr_arch.plots.images import comparison
    from bidiffsr_arch.plots.probe import photograph
    from bidiffsr_arch.upscale.plan import images_of

    paths = images_of(Path(args.image))
    return comparison(upscaler(args), {path.stem: photograph(path, args.crop) for path in paths})


class Entry(NamedTuple):
    """A figure: the function that draws it, its options (keys of `OPTIONS`), an example, and what it shows."""

    draw: Callable[[argparse.Namespace], "Figure"]
    options: str
    example: str
    line: str


FIGURES = {
    "activations": Entry(draw_activations, "image weights crop seed layer", "activations photo.png --weights net.pth",
                         "distribution of a layer's input over the timesteps"),
    "ranges": Entry(draw_ranges, "image weights crop seed layer", "ranges photo.png --weights net.pth --layer ups.2",
                    "ranges before and after a channel shuffle"),
    "biases": Entry(draw_biases, "weights layer", "biases --weights net.pth --layer mid.0.res_block.block1.conv",
                    "the biases of a layer per timestep group"),
    "trajectory": Entry(draw_trajectory, "image weights crop seed sampling", "trajectory photo.png --weights net.pth",
                        "from noise to image"),
    "curves": Entry(draw_curves, "source", "curves experiments/my_x2", "losses and metrics of a training run"),
    "strip": Entry(draw_strip, "image weights crop seed sampling", "strip photos/ --weights net.pth --crop 192",
                   "LR, bicubic, result and HR"),
}  # fmt: skip


def add_weights(add: Callable) -> None:
    """Weights, and the option file they were trained with."""
    add("--weights", required=True, metavar="FILE", help="trained weights, as in --weights net_g_latest.pth")
    add("-opt", metavar="FILE", help="option file they were trained with (default: the copy beside them)")


def add_sampling(add: Callable) -> None:
    """Sampling steps and sampler."""
    add("--steps", type=int, metavar="N", help="sampling steps (default: as in the options)")
    add("--sampler", metavar="NAME", help="a scheduler of diffusers (default: as in the options)")


OPTIONS: dict[str, Callable[[Callable], None]] = {
    "image": lambda add: add("image", metavar="IMAGE", help="a high-resolution photograph; for strip also a folder"),
    "source": lambda add: add("source", metavar="LOG|FOLDER", help="a log; a folder of logs or of TensorBoard"),
    "weights": add_weights,
    "crop": lambda add: add("--crop", type=int, default=192, metavar="PX",
                            help="largest side of the center crop that is used (default: %(default)s)"),
    "seed": lambda add: add("--seed", type=int, default=0, metavar="S", help="seed of noise (default: %(default)s)"),
    "layer": lambda add: add("--layer", metavar="NAME", help="the layer (default: halfway through the network)"),
    "sampling": add_sampling,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subparser per figure."""
    figures = parser.add_subparsers(dest="figure", metavar="FIGURE", required=True)
    for name, entry in FIGURES.items():
        figure = figures.add_parser(
            name, help=entry.line, description=entry.line, epilog=f"example: basicsr plot {entry.example} -o {name}.png"
        )
        for option in entry.options.split():
            OPTIONS[option](figure.add_argument)
        figure.add_argument("-o", "--output", required=True, metavar="FILE.png", help="the figure")
        figure.add_argument("--overwrite", action="store_true", help="replace an existing figure")
        figure.set_defaults(draw=entry.draw)


def run(args: argparse.Namespace) -> None:
    """Draw a figure and write it.

    Raises:
        InputError: an argument or file is wrong, or matplotlib is missing.
    """
    output = Path(os.path.expanduser(args.output))
    if output.suffix.lower() != ".png":
        raise InputError(f"expected an output that ends in .png, got {args.output}")
    from bidiffsr_arch.files import refuse_existing, write_bytes

    refuse_existing(output, args.overwrite)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(f"expected matplotlib for figures, found none; {install_extra('plot')}") from error
    buffer = io.BytesIO()
    args.draw(args).savefig(buffer, format="png", dpi=DPI)
    write_bytes(output, buffer.getvalue())
    print(f"wrote {output}")

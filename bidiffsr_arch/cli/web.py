"""Upscale images on a web page.

Visitors drop images, select a network, steps and seed, compare before and after, and download the files that
`basicsr upscale` would write. The page offers the small networks that come with the package, and those of --weights; a
visitor cannot name files. Only this machine can reach it, unless --host is given. Nothing is downloaded from elsewhere
or reported, and images and results are deleted after an hour.

Needs Gradio, the extra `web` (docs/install.md).
"""

import argparse
import math
from importlib.util import find_spec

from bidiffsr_arch.errors import InputError, install_extra
from bidiffsr_arch.web import Limits

EXAMPLE = "basicsr web --weights net_g.safetensors --port 8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Networks, address and limits."""
    add, limits = parser.add_argument, Limits()
    add("--weights", nargs="+", default=[], metavar="FILE",
        help="networks to offer besides the package's own: a .safetensors, a .pth of training, a folder of "
        "save_pretrained, or hf://OWNER/NAME")  # fmt: skip
    add("--device", default="auto", metavar="NAME", help="such as --device cpu or cuda:1 (default: %(default)s)")
    add("--host", default="127.0.0.1", metavar="NAME",
        help="address to serve at; 0.0.0.0 for other machines, too (default: %(default)s)")  # fmt: skip
    add("--port", type=int, default=7860, metavar="N", help="port; 0: a free one (default: %(default)s)")
    add("--megapixels", type=float, default=limits.megapixels, metavar="N",
        help="largest result in millions of pixels (default: %(default)g)")  # fmt: skip
    add("--upload-megabytes", type=float, default=limits.upload_megabytes, metavar="N",
        help="largest image file in millions of bytes (default: %(default)g)")  # fmt: skip
    add("--images", type=int, default=limits.images, metavar="N",
        help="largest number of images per request (default: %(default)s)")  # fmt: skip
    add("--queue", type=int, default=limits.queue, metavar="N",
        help="largest number of requests that wait while another runs (default: %(default)s)")  # fmt: skip
    add("--seconds", type=float, default=limits.seconds, metavar="N",
        help="longest computation of a request in seconds (default: %(default)g)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Serve the page until it is interrupted.

    Raises:
        InputError: an argument is wrong, Gradio is missing, or the address is not available.
    """
    names = ("megapixels", "upload_megabytes", "images", "queue", "seconds")
    limits = Limits(**{name: getattr(args, name) for name in names})
    for name in names:
        if not 0 < getattr(limits, name) < math.inf:
            raise InputError(f"expected --{name.replace('_', '-')} above 0, got {getattr(limits, name):g}")
    if not 0 <= args.port < 65536:
        raise InputError(f"expected --port from 0 to 65535, got {args.port}")
    if find_spec("gradio") is None:
        raise InputError(f"expected Gradio for the page, found none; {install_extra('web')}")
    from bidiffsr_arch.web.models import Models
    from bidiffsr_arch.web.server import serve

    serve(Models(args.weights, args.device), limits, args.host, args.port)

"""LPIPS (Zhang et al., CVPR 2018, v0.1 linear weights) as a BasicSR metric that never downloads anything.

The linear weights come with the `lpips` package. The backbone's are torchvision's: `basicsr data lpips-weights` fetches
AlexNet's.
"""

import math
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bidiffsr_arch.errors import InputError, WeightsMissing
from bidiffsr_arch.metrics.pixels import height_width_channels, rgb
from bidiffsr_arch.parameters import load_safely, reason_of

WEIGHTS_VARIABLE = "BIDIFFSR_LPIPS_WEIGHTS"


class Backbone(NamedTuple):
    """The ImageNet network whose activations are compared."""

    torchvision_file: str
    min_side: int  # pixels; a smaller image leaves a pooling layer without input


BACKBONES = {
    "alex": Backbone("alexnet-owt-7be5be79.pth", 31),
    "vgg": Backbone("vgg16-397923af.pth", 16),
    "squeeze": Backbone("squeezenet1_1-b8a52dc0.pth", 17),
}


def calculate_lpips(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    input_order: str = "HWC",
    net: str = "alex",
    weights: str | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> float:
    """Perceptual distance of two images: 0 if they are equal, larger is worse.

    Args:
        img, img2: BGR or gray, of the same shape, values in 0 .. 255, as BasicSR passes them to metrics.
        crop_border: pixels cropped from each edge. Published numbers use 0.
        input_order: "HWC" or "CHW".
        net: "alex", "vgg" or "squeeze".
        weights: torchvision's weights file of that network; if None, `find_weights` searches for it.
        device: where to compute; by default CUDA if available, else the CPU.
        kwargs: other options that BasicSR passes to metrics, such as `better`; ignored.

    Returns:
        The distance; nan, with a warning, if the images are too small for the network (alex: 31 pixels per side).

    Raises:
        WeightsMissing: no weights were found, or the file does not hold this network's.
        InputError: an unknown network, images of different shapes, or a number of channels other than 1 and 3.
    """
    network = load_lpips(net, weights, device)
    if img.shape != img2.shape:
        raise InputError(f"expected two images of one shape for LPIPS, got {img.shape} and {img2.shape}")
    pair = (rgb(height_width_channels(image, input_order), crop_border, "LPIPS") for image in (img, img2))
    images = [image / 127.5 - 1 for image in pair]
    min_side, size = BACKBONES[net].min_side, tuple(images[0].shape[2:])
    if min(size) < min_side:
        warnings.warn(f"LPIPS ({net}) needs images of at least {min_side}x{min_side}, got {size}: nan", stacklevel=2)
        return math.nan
    network_device = next(network.parameters()).device
    with torch.inference_mode():
        return network(*(image.to(network_device) for image in images)).item()


def load_lpips(net: str = "alex", weights: str | None = None, device: str | None = None) -> torch.nn.Module:
    """The LPIPS network that `calculate_lpips` uses; loaded once per process.

    It takes two RGB float32 tensors of shape (N, 3, H, W) with values in -1 .. 1. Arguments and errors are those of
    `calculate_lpips`.
    """
    if net not in BACKBONES:
        raise InputError(f"expected the LPIPS network to be one of {', '.join(BACKBONES)}, got {net!r}")
    return _load(net, find_weights(net, weights), device or ("cuda" if torch.cuda.is_available() else "cpu"))


def find_weights(net: str, weights: str | Path | None = None) -> Path:
    """The weights file of a network.

    The first of: `weights`, the environment variable BIDIFFSR_LPIPS_WEIGHTS, the file written by
    `basicsr data lpips-weights`, the file downloaded by torchvision.

    Raises:
        WeightsMissing: there is none, or the named file does not exist.
    """
    named = weights or os.environ.get(WEIGHTS_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise WeightsMissing(f"expected the weights of LPIPS ({net}) in {named}, found no such file")
        return Path(named).resolve()
    file_name = BACKBONES[net].torchvision_file
    for path in (cached_weights(net), Path(torch.hub.get_dir(), "checkpoints", file_name)):
        if path.is_file():
            return path.resolve()
    fetch = "run `basicsr data lpips-weights`, or " if net == "alex" else ""
    raise WeightsMissing(
        f"expected weights of LPIPS ({net}), found none: {fetch}download torchvision's {file_name} and set the "
        f"metric's option `weights` or the environment variable {WEIGHTS_VARIABLE} to its path"
    )


def cached_weights(net: str) -> Path:
    """Where `basicsr data lpips-weights` writes: `bidiffsr/lpips_NET.pth` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "bidiffsr", f"lpips_{net}.pth")


def untrained_lpips(net: str) -> torch.nn.Module:
    """LPIPS with its v0.1 linear weights and a random backbone; downloads nothing, leaves random states unchanged."""
    from lpips import LPIPS

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # lpips passes pretrained=False to torchvision, which warns that it is deprecated.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return LPIPS(net=net, pnet_rand=True, verbose=False)


@cache
def _load(net: str, path: Path, device: str) -> torch.nn.Module:
    unfit = f"expected torchvision's {BACKBONES[net].torchvision_file} for LPIPS ({net}) in {path}, got"
    try:
        state = load_safely(path)
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__}, not a state dict")
        network = untrained_lpips(net)
        # lpips splits torchvision's `features` into slices and keeps the indices: slice2.3.weight is features.3.weight.
        backbone: torch.nn.Module = network.get_submodule("net")
        backbone.load_state_dict({name: state[f"features.{name.split('.', 1)[1]}"] for name in backbone.state_dict()})
    except KeyError as missing:
        raise WeightsMissing(f"{unfit} a file without {missing}") from missing
    except Exception as error:  # damaged files may raise anything
        raise WeightsMissing(f"{unfit} something else ({reason_of(error)})") from error
    return network.to(device)

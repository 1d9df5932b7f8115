"""LPIPS (Zhang et al., CVPR 2018, v0.1 linear weights) as a BasicSR metric that never downloads anything.

The linear weights lie in the `lpips` package; those of the network below them are torchvision's, and have to be had
first: `basicsr data lpips-weights`.
"""

import math
import os
import pickle
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bidiffsr_arch.errors import InputError

WEIGHTS_VARIABLE = "BIDIFFSR_LPIPS_WEIGHTS"


class Trunk(NamedTuple):
    """The ImageNet network whose activations are compared."""

    torchvision_file: str
    smallest_side: int  # pixels; below it a pooling layer has nothing left to pool


TRUNKS = {
    "alex": Trunk("alexnet-owt-7be5be79.pth", 31),
    "vgg": Trunk("vgg16-397923af.pth", 16),
    "squeeze": Trunk("squeezenet1_1-b8a52dc0.pth", 17),
}


class WeightsMissing(InputError):
    """The weights of an LPIPS network cannot be had; the message is one line that says what to do."""


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
    """Perceptual distance of two pictures: 0 for equal ones, larger is worse.

    Args:
        img, img2: BGR (or gray) of the same shape, values in 0 .. 255, as BasicSR's metrics take them.
        crop_border: pixels that are cropped from each edge. Published numbers are made with 0.
        input_order: "HWC" or "CHW".
        net: "alex", "vgg" or "squeeze".
        weights: file of torchvision's weights of that network; see `find_weights` for where it is looked for without.
        device: where to compute; CUDA where there is one, by default.
        kwargs: BasicSR hands its metrics further options, such as `better`; they do not matter here.

    Returns:
        The distance; nan, with a warning, for pictures that are too small for the network (alex: 31 pixels a side).

    Raises:
        WeightsMissing: no weights were found, or the file does not hold this network's.
        InputError: an unknown network, or pictures of different shapes or with other than 1 or 3 channels.
    """
    network = load_lpips(net, weights, device)
    if img.shape != img2.shape:
        raise InputError(f"expected two pictures of one shape for LPIPS, got {img.shape} and {img2.shape}")
    pictures = [_network_input(_height_width_channels(image, input_order), crop_border) for image in (img, img2)]
    if min(pictures[0].shape[2:]) < TRUNKS[net].smallest_side:
        side, size = TRUNKS[net].smallest_side, tuple(pictures[0].shape[2:])
        warnings.warn(f"LPIPS ({net}) needs pictures of {side} pixels a side, got {size}: nan", stacklevel=2)
        return math.nan
    home = next(network.parameters()).device
    with torch.inference_mode():
        return network(*(picture.to(home) for picture in pictures)).item()


def load_lpips(net: str = "alex", weights: str | None = None, device: str | None = None) -> torch.nn.Module:
    """The LPIPS network that `calculate_lpips` uses; built and read once, then kept.

    Takes two RGB float32 tensors of shape (N, 3, H, W) with values in -1 .. 1. Arguments and errors as in
    `calculate_lpips`.
    """
    if net not in TRUNKS:
        raise InputError(f"expected the LPIPS network to be one of {', '.join(TRUNKS)}, got {net!r}")
    return _load(net, find_weights(net, weights), device or ("cuda" if torch.cuda.is_available() else "cpu"))


def find_weights(net: str, weights: str | Path | None = None) -> Path:
    """The weights file of a network, in this order: `weights`, the file that the environment variable
    BIDIFFSR_LPIPS_WEIGHTS names, the one that `basicsr data lpips-weights` wrote, the one that torchvision downloaded.

    Raises:
        WeightsMissing: there is none, or the one that was named does not exist.
    """
    named = weights or os.environ.get(WEIGHTS_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise WeightsMissing(f"expected the weights of LPIPS ({net}) in {named}, found no such file")
        return Path(named).resolve()
    file_name = TRUNKS[net].torchvision_file
    for path in (cached_weights(net), Path(torch.hub.get_dir(), "checkpoints", file_name)):
        if path.is_file():
            return path.resolve()
    first_try = "run `basicsr data lpips-weights`, or " if net == "alex" else ""
    raise WeightsMissing(
        f"LPIPS ({net}) has no weights: {first_try}get torchvision's {file_name} and name it by the metric's option "
        f"`weights` or the environment variable {WEIGHTS_VARIABLE}"
    )


def cached_weights(net: str) -> Path:
    """Where this package keeps a network's weights: `bidiffsr/lpips_NET.pth` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "bidiffsr", f"lpips_{net}.pth")


def untrained_lpips(net: str) -> torch.nn.Module:
    """LPIPS with its v0.1 linear weights over a random trunk; nothing is downloaded, no random state is touched."""
    from lpips import LPIPS

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # lpips asks torchvision for pretrained=False, which torchvision calls deprecated.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return LPIPS(net=net, pnet_rand=True, verbose=False)


@cache
def _load(net: str, path: Path, device: str) -> torch.nn.Module:
    unfit = f"expected torchvision's {TRUNKS[net].torchvision_file} for LPIPS ({net}) in {path}, got"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__}, not a state dict")
        network = untrained_lpips(net)
        # lpips cuts torchvision's `features` into slices and keeps the numbers: slice2.3.weight is features.3.weight.
        trunk = {name: state[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()}
        network.net.load_state_dict(trunk)
    except KeyError as missing:
        raise WeightsMissing(f"{unfit} a file without {missing}") from missing
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsMissing(f"{unfit} something else ({reason})") from error
    return network.to(device)


def _height_width_channels(image: np.ndarray, input_order: str) -> np.ndarray:
    """(H, W), (H, W, C) or, by `input_order`, (C, H, W) -> (H, W, C)."""
    if input_order not in ("HWC", "CHW"):
        raise InputError(f"expected input_order to be HWC or CHW, got {input_order!r}")
    if image.ndim == 2:
        return image[..., None]
    return image.transpose(1, 2, 0) if input_order == "CHW" else image


def _network_input(image: np.ndarray, crop_border: int) -> torch.Tensor:
    """(H, W, 1 or 3) in 0 .. 255, BGR -> (1, 3, H', W') in -1 .. 1, RGB."""
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise InputError(f"expected pictures with 1 or 3 channels for LPIPS, got {channels}")
    image = image[crop_border : height - crop_border, crop_border : width - crop_border, ::-1]
    image = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    return image.expand(-1, 3, -1, -1)

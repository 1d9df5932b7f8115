"""The metrics of pyiqa (IQA-PyTorch: MUSIQ, MANIQA, CLIP-IQA, TOPIQ, DISTS and a hundred more) as BasicSR metrics.

pyiqa is optional, the extra ``iqa``, and imported when one of its metrics is used. It downloads its weights itself,
into its own cache; torch's safe loader reads them.
"""

import difflib
import logging
import os
import random
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch

from bidiffsr_arch.errors import InputError, WeightsMissing, install_extra, typed_line
from bidiffsr_arch.metrics.pixels import height_width_channels, rgb

NAME = "calculate_iqa"
MEASURES_SETS = ("FID", "InceptionScore")  # pyiqa's networks that compare folders of images
SEED = 123  # of metrics that crop at random
SAFE_LOADING = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
UNSAFE_LOADING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def calculate_iqa(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    *,
    metric: str,
    device: str | None = None,
    **kwargs: Any,
) -> float:
    """A metric of pyiqa.

    Args:
        img, img2: result and GT, BGR or gray, of the same shape, values in 0 .. 255, as BasicSR passes them to metrics.
            No-reference metrics ignore img2.
        crop_border: pixels cropped from each edge.
        input_order: "HWC" or "CHW".
        metric: its name, one of ``pyiqa.list_models()``, such as "musiq" or "topiq_fr".
        device: where to compute; by default CUDA if available, else the CPU.
        kwargs: other options that BasicSR passes to metrics, such as `better`; ignored.

    Returns:
        pyiqa's value. It depends on the arguments alone: metrics that crop at random use a fixed seed.

    Raises:
        WeightsMissing: its weights cannot be downloaded or read.
        InputError: pyiqa is not installed, an unknown metric, a missing GT image, or images that it cannot measure.
    """
    images = [img]
    if needs_reference(metric):
        if img2 is None:
            raise InputError(f"expected a GT image for pyiqa's {metric}, a full-reference metric, got none")
        if img.shape != img2.shape:
            raise InputError(f"expected two images of one shape for pyiqa's {metric}, got {img.shape} and {img2.shape}")
        images.append(img2)
    pixels = (rgb(height_width_channels(image, input_order), crop_border, metric) for image in images)
    inputs = [(image / 255).contiguous() for image in pixels]
    network = load_iqa(metric, device)
    try:
        with _own_random_numbers(), torch.inference_mode():
            return float(network(*inputs))
    except Exception as error:  # networks raise various errors for images that are too small
        height, width = inputs[0].shape[2:]
        reason = typed_line(error)
        raise InputError(f"pyiqa's {metric} cannot measure an image of {width}x{height} ({reason})") from error


@cache
def load_iqa(metric: str, device: str | None = None) -> torch.nn.Module:
    """The network that `calculate_iqa` uses; loaded once per process, name and device.

    It takes RGB float32 tensors of shape (N, 3, H, W) with values in 0 .. 1. Errors are those of `calculate_iqa`.
    """
    configuration(metric)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    variables = {} if os.environ.get(UNSAFE_LOADING) else SAFE_LOADING
    try:
        with _own_random_numbers(), _environment(variables):
            return import_module("pyiqa").create_metric(metric, device=chosen)
    except Exception as error:  # downloads, imports and broken files raise various errors
        raise WeightsMissing(
            f"pyiqa's {metric} cannot be loaded ({typed_line(error)}); connect to the network once, or choose a metric "
            "without weights, such as psnr, ssim or gmsd"
        ) from error


@cache
def configuration(metric: str) -> Mapping[str, Any]:
    """pyiqa's configuration of a metric: ``metric_mode`` ("FR" or "NR"), ``lower_better``, ``metric_opts``.

    Raises:
        InputError: pyiqa is not installed or cannot be imported, or has no such metric of single images.
    """
    try:
        known = import_module("pyiqa.default_model_configs").DEFAULT_CONFIGS
        import_module("pyiqa.utils").get_root_logger().setLevel(logging.WARNING)  # it logs every network
    except Exception as error:  # its imports may raise anything
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pyiqa"
        reason = "which is not installed" if missing else f"which cannot be imported ({typed_line(error)})"
        raise InputError(f"expected the package pyiqa for {NAME}, {reason}; {install_extra('iqa')}") from error
    single = [name for name, entry in known.items() if entry["metric_opts"]["type"] not in MEASURES_SETS]
    if metric in single:
        return known[metric]
    if metric in known:
        raise InputError(f"expected a metric of single images, got {metric}, which compares folders; use pyiqa itself")
    near = difflib.get_close_matches(str(metric), single, n=3) or sorted(single)
    raise InputError(f"expected {NAME}: metric to be a metric of pyiqa, such as {', '.join(near)}, got {metric!r}")


def needs_reference(metric: str) -> bool:
    """Whether a metric compares with GT. Errors are those of `configuration`."""
    return configuration(metric)["metric_mode"] == "FR"


def direction(metric: str) -> str:
    """Which values are better, "lower" or "higher". Errors are those of `configuration`."""
    return "lower" if configuration(metric).get("lower_better") else "higher"


def set_directions(metrics: Mapping[str, MutableMapping[str, Any]]) -> None:
    """Set ``better`` of all metrics of pyiqa in ``val: metrics``, in place. Errors are those of `configuration`."""
    for block in metrics.values():
        if block.get("type") == NAME:
            block["better"] = direction(block["metric"])


def wrong_metric(block: Mapping[str, Any], place: str) -> Iterator[str]:
    """One sentence for what is wrong with a metric's options, apart from their types."""
    try:
        better = direction(block["metric"])
    except InputError as error:
        yield f"{place}: {error}"
        return
    if block.get("better", better) != better:
        yield f"expected {place}: better: {better}, as pyiqa has it for {block['metric']}, got {block['better']}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Seed all random generators by `SEED` inside the context, and restore their states afterwards."""
    python, state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(state)

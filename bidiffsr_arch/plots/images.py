"""Figures made of images: a sampling trajectory, and results beside LR, bicubic and HR."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.psnr import psnr_y
from bidiffsr_arch.plots.probe import as_image, as_tensor
from bidiffsr_arch.upscale.direct import DirectNetwork
from bidiffsr_arch.upscale.upscaler import Upscaler

CELL = 2.6  # inches
SHOWN = 6  # noisy images in a trajectory


def trajectory(upscaler: Upscaler, photograph: np.ndarray) -> Figure:
    """The sampler's x_t at several timesteps, for a photograph that is downsampled and then upscaled.

    Args:
        photograph: high-resolution image, uint8 (H, W, 3), sides multiples of the scale and of the network's multiple.
    Raises:
        InputError: the network does not diffuse.
    """
    process, network = upscaler.super_resolution, upscaler.network
    if process is None or isinstance(network, DirectNetwork):
        raise InputError("expected a diffusion network for a trajectory, got one without diffusion; use plot strip")
    inputs: list[tuple[Tensor, Tensor]] = []

    def recorded(x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        inputs.append((x_t, condition))
        return network(x_t, condition, time)

    condition = upsample(as_tensor(imresize(photograph, 1 / upscaler.scale)), upscaler.scale).to(upscaler.device)
    result = process.sample(recorded, condition, [upscaler.seed], multiple=network.multiple, steps=upscaler.steps)
    sampler = process.diffusion.sampler(upscaler.steps)
    cells = []  # pairs, because samplers such as Heun visit a timestep twice
    for index in np.unique(np.linspace(0, len(inputs) - 1, SHOWN).round().astype(int)):
        state = process.denormalize(process.to_image(*inputs[index]))
        cells.append((f"t = {round(float(sampler.timesteps[index]))}", as_image(state)))
    figure = grid([[*cells, ("result", as_image(result)), ("HR", photograph)]], photograph.shape)
    name = type(sampler).__name__.removesuffix("Scheduler")
    figure.suptitle(f"Sampling x{upscaler.scale}: {name}, {len(inputs)} network calls, seed {upscaler.seed}")
    return figure


def comparison(upscaler: Upscaler, photographs: Mapping[str, np.ndarray]) -> Figure:
    """LR, bicubic, result and HR in one row per photograph, with PSNR on Y.

    Args:
        photographs: name -> high-resolution image, uint8 (H, W, 3), sides multiples of the scale; MATLAB's imresize
            makes LR.
    """
    rows = []
    for name, high in photographs.items():
        low = imresize(high, 1 / upscaler.scale)
        bicubic = cv2.resize(low, high.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        result = upscaler(low)
        rows.append([
            (f"{name}: LR", cv2.resize(low, high.shape[1::-1], interpolation=cv2.INTER_NEAREST)),
            (f"bicubic, {psnr_y(bicubic, high, upscaler.scale):.2f} dB", bicubic),
            (f"result, {psnr_y(result, high, upscaler.scale):.2f} dB", result),
            ("HR", high),
        ])  # fmt: skip
    figure = grid(rows, next(iter(photographs.values())).shape)
    figure.suptitle(f"x{upscaler.scale}, PSNR on Y in dB, border of {upscaler.scale} pixels excluded")
    return figure


def grid(rows: Sequence[Sequence[tuple[str, np.ndarray]]], shape: tuple[int, ...]) -> Figure:
    """Rows of titles and images; `shape` (H, W, ...) of a typical image sets the aspect ratio of the cells."""
    columns, height = len(rows[0]), CELL * shape[0] / shape[1] + 0.2
    figure = Figure((CELL * columns, height * len(rows) + 0.4), layout="constrained")
    table = figure.subplots(len(rows), columns, squeeze=False)
    for line, cells in zip(table, rows, strict=True):
        for axes, (title, image) in zip(line, cells, strict=True):
            _show(axes, title, image)
    return figure


def _show(axes: Axes, title: str, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()

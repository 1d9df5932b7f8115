"""Rates of a packed network's convolutions beside those of torch."""

import inspect
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bidiffsr_arch.bench.turns import in_turns
from bidiffsr_arch.packed import PackedNetwork

OPERATIONS = {"binary_conv": "1-bit", "conv3x3": "float", "pointwise": "float"}


class Layer(NamedTuple):
    """Layers of one kind and shape: their median seconds per step, and the rates of the packed layer and of torch's
    float32 convolution in 1e9 multiply-accumulates per second.
    """

    kind: str
    channels: int
    filters: int
    height: int
    width: int
    calls: int
    seconds: float
    gmacs: float
    torch_gmacs: float


def layer_rates(
    network: PackedNetwork, inputs: tuple[Tensor, ...], rounds: int, clock: Callable[[], float]
) -> list[Layer]:
    """Rates of all convolutions of a step, sorted by time."""
    runs = []
    for _ in range(rounds):
        with _watched(network, clock) as calls:
            network(*inputs)
        runs.append(calls)
    layers = []
    for key, first in runs[0].items():
        kind, k, channels, filters, h, w = key
        count, seconds = len(first), statistics.median(sum(calls[key]) for calls in runs)
        work = h * w * k * k * channels * filters / 1e9
        rate = work / _torch_seconds(channels, filters, k, (h, w), rounds, clock)
        layers.append(Layer(kind, channels, filters, h, w, count, seconds, work * count / seconds, rate))
    return sorted(layers, key=lambda layer: -layer.seconds)


@contextmanager
def _watched(network: PackedNetwork, clock: Callable[[], float]) -> Iterator[dict[tuple, list[float]]]:
    """Record the seconds of each convolution of the backend, by kind and shape."""
    calls: dict[tuple, list[float]] = {}
    backend: Any = network.backend

    def timed(name: str, operation: Callable, *args: Any, **options: Any) -> Any:
        start = clock()
        result = operation(*args, **options)
        seconds = clock() - start
        given = inspect.signature(operation).bind(*args, **options).arguments
        calls.setdefault(_kind_and_shape(name, given), []).append(seconds)
        return result

    for name in OPERATIONS:
        setattr(backend, name, partial(timed, name, getattr(backend, name)))
    try:
        yield calls
    finally:
        for name in OPERATIONS:
            delattr(backend, name)


def _kind_and_shape(name: str, given: dict[str, Any]) -> tuple:
    """Kind, kernel size, channels, filters, height and width of an operation's call with these arguments."""
    (height, width, channels), weight = given["x"].shape, given["weight"]
    if name == "binary_conv":
        channels = len(given["shift"])
    elif given.get("other") is not None:
        channels *= 2
    is_1x1 = name == "pointwise" or getattr(weight, "radius", None) == 0 or getattr(weight, "kernel_size", None) == 1
    k = 1 if is_1x1 else 3
    return f"{OPERATIONS[name]} {k}x{k}", k, channels, given["out"].shape[2], height, width


def _torch_seconds(
    channels: int, filters: int, k: int, size: tuple[int, int], rounds: int, clock: Callable[[], float]
) -> float:
    """Median seconds of torch's float32 convolution in the faster of its two memory layouts."""
    maps = torch.rand(1, channels, *size), torch.rand(filters, channels, k, k)
    steps = {
        layout: partial(F.conv2d, *(each.contiguous(memory_format=layout) for each in maps), padding=k // 2)
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    return min(in_turns(steps, rounds, clock).values())

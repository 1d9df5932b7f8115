"""Rates of a packed network's convolutions beside those of torch."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bidiffsr_arch.bench.turns import in_turns
from bidiffsr_arch.packed import PackedNetwork

OPERATIONS = {"binary_conv": "1-bit", "conv3x3": "float", "pointwise": "float"}


class Layer(NamedTuple):
    """Layers of one kind and shape: their median seconds per step, and rates in 1e9 multiply-accumulates per second, of
    the packed layer and of torch's float32 convolution in the faster of its two memory layouts.
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
    for key in runs[0]:
        seconds = statistics.median(sum(calls[key]) for calls in runs)
        count = len(runs[0][key])
        kind, k, channels, filters, h, w = key
        work = h * w * k * k * channels * filters / 1e9
        rate = work / _torch_seconds(channels, filters, k, h, w, rounds, clock)
        layers.append(Layer(kind, channels, filters, h, w, count, seconds, work * count / seconds, rate))
    return sorted(layers, key=lambda layer: -layer.seconds)


@contextmanager
def _watched(network: PackedNetwork, clock: Callable[[], float]) -> Iterator[dict[tuple, list[float]]]:
    """Record the seconds of each convolution of the backend, by kind and shape."""
    calls: dict[tuple, list[float]] = {}
    backend: Any = network.backend

    def watch(name: str, kind: str) -> None:
        operation = getattr(backend, name)

        def timed(x: Any, weight: Any, third: Any, fourth: Any, *rest: Any, **options: Any) -> Any:
            out = rest[0] if name == "binary_conv" else fourth
            channels = len(third) if name == "binary_conv" else x.shape[2]
            if options.get("other") is not None:
                channels *= 2
            k = 1 if name == "pointwise" or (name == "binary_conv" and _is_pointwise(weight)) else 3
            start = clock()
            result = operation(x, weight, third, fourth, *rest, **options)
            key = (f"{kind} {k}x{k}", k, channels, out.shape[2], *x.shape[:2])
            calls.setdefault(key, []).append(clock() - start)
            return result

        setattr(backend, name, timed)

    for name, kind in OPERATIONS.items():
        watch(name, kind)
    try:
        yield calls
    finally:
        for name in OPERATIONS:
            delattr(backend, name)


def _is_pointwise(weight: Any) -> bool:
    return getattr(weight, "radius", None) == 0 or getattr(weight, "kernel_size", None) == 1


def _torch_seconds(
    channels: int, filters: int, k: int, height: int, width: int, rounds: int, clock: Callable[[], float]
) -> float:
    """Median seconds of torch's float32 convolution in the faster of its two memory layouts."""
    x, weight = torch.rand(1, channels, height, width), torch.rand(filters, channels, k, k)
    x_last, weight_last = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    steps = {
        "contiguous": lambda: F.conv2d(x, weight, padding=k // 2),
        "channels_last": lambda: F.conv2d(x_last, weight_last, padding=k // 2),
    }
    return min(in_turns(steps, rounds, clock).values())

"""What `basicsr bench` measures."""

import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bidiffsr_arch.archs import BIDiffSRUNet, SR3UNet
from bidiffsr_arch.packed.file_format import Description, load_packed, save_packed
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import pack

SR3, FLOAT, PACKED, OWN = "SR3 float32", "BI-DiffSR float32", "BI-DiffSR packed", "SR3 own kernels"


Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": perf_counter, "cpu": process_time}


class Row(NamedTuple):
    """A network: median seconds a step, peak memory of loading it and of one step, size of its weights."""

    name: str
    seconds: float
    peak_bytes: int | None
    weight_bytes: int


class Layer(NamedTuple):
    """Layers of one kind and shape: median seconds of all of them in a step, and rates in 1e9 multiply-accumulates a
    second, ours and that of torch's float32 convolution in the faster of its two layouts."""

    kind: str
    channels: int
    filters: int
    height: int
    width: int
    calls: int
    seconds: float
    gmacs: float
    torch_gmacs: float


class Result(NamedTuple):
    """Rows, and the backend of the packed network."""

    rows: list[Row]
    backend: str

    def ratios(self) -> dict[str, float]:
        """How many times longer the float networks take than the packed one."""
        seconds = {row.name: row.seconds for row in self.rows}
        return {f"{name} / packed": seconds[name] / seconds[PACKED] for name in (SR3, FLOAT, OWN)}


def machine(backend: str) -> dict[str, str | int | None]:
    """Where a measurement was made."""
    names = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = None
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba,
        "python": platform.python_version(),
        "backend": backend,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return (*torch.rand(2, 1, 3, height, width, generator=generator), torch.tensor([1000]))


@torch.inference_mode()
def _interleaved(steps: dict[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, float]:
    """Median seconds of each step; they take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def measure(height: int, width: int, rounds: int, backend: str | None, clock: Clock, *, memory: bool) -> Result:
    """Time all networks in turns; then, if asked, each one's memory."""
    torch.manual_seed(0)
    args = _inputs(height, width)
    sr3, float_network = SR3UNet().eval(), BIDiffSRUNet().eval()
    packed = pack(float_network, backend)
    last = "channels_last"
    sr3_last = SR3UNet().eval().to(memory_format=torch.channels_last)
    args_last = [arg.contiguous(memory_format=torch.channels_last) if arg.dim() == 4 else arg for arg in args]
    own = pack(sr3, backend)
    seconds = _interleaved(
        {
            SR3: lambda: sr3(*args),
            last: lambda: sr3_last(*args_last),
            FLOAT: lambda: float_network(*args),
            PACKED: lambda: packed(*args),
            OWN: lambda: own(*args),
        },
        rounds,
        clock,
    )
    seconds[SR3] = min(seconds[SR3], seconds.pop(last))
    weights = {SR3: _bytes(sr3), FLOAT: _bytes(float_network), PACKED: packed.weight_bytes, OWN: _bytes(sr3)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "packed.safetensors")
        save_packed(packed, path, Description(network_g={"type": "BIDiffSRUNet"}))
        peaks = {name: _peak_elsewhere(name, height, width, backend, path) if memory else None for name in seconds}
    return Result([Row(name, seconds[name], peaks[name], weights[name]) for name in seconds], packed.backend.name)


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def _peak_elsewhere(name: str, height: int, width: int, backend: str | None, path: Path) -> int:
    """Peak memory of a network in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, height, width, backend, path, torch.get_num_threads()))


def _resident() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure starts, in a process that another one has started, with that one's peak
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _peak(name: str, height: int, width: int, backend: str | None, path: Path, threads: int) -> int:
    torch.set_num_threads(threads)
    if name in (PACKED, OWN):  # what compiling takes is no matter of the network
        tiny = BIDiffSRUNet(inner_channel=32, channel_mults=[1, 2], res_blocks=1, image_size=64, fp_res=[64])
        pack(tiny.eval(), backend)(*_inputs(64, 64))
    before = _resident()
    if name == PACKED:
        network, _ = load_packed(path, backend)
    elif name == OWN:
        network = pack(SR3UNet().eval(), backend)
    else:
        network = (SR3UNet() if name == SR3 else BIDiffSRUNet()).eval()
    with torch.inference_mode():
        network(*_inputs(height, width))
    return _resident() - before


def by_layer(height: int, width: int, rounds: int, backend: str | None, clock: Clock) -> list[Layer]:
    """Rates of all convolutions of a packed step, those that take longest first."""
    packed = pack(BIDiffSRUNet().eval(), backend)
    args = _inputs(height, width)
    packed(*args)
    runs = []
    for _ in range(rounds):
        with _watched(packed, clock) as calls:
            packed(*args)
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
def _watched(packed: PackedNetwork, clock: Clock):
    """Seconds of each convolution of the backend, by kind and shape."""
    calls: dict[tuple, list[float]] = {}
    backend = packed.backend

    def watch(name: str, kind: str) -> None:
        operation = getattr(backend, name)

        def timed(x, weight, third, fourth, *rest, **options):
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

    for name, kind in (("binary_conv", "1-bit"), ("conv3x3", "float"), ("pointwise", "float")):
        watch(name, kind)
    yield calls
    for name in ("binary_conv", "conv3x3", "pointwise"):
        delattr(backend, name)


def _is_pointwise(weight) -> bool:
    return getattr(weight, "radius", None) == 0 or getattr(weight, "kernel_size", None) == 1


def _torch_seconds(channels: int, filters: int, k: int, height: int, width: int, rounds: int, clock: Clock) -> float:
    """Median seconds of torch's float32 convolution in the faster of its two layouts."""
    x, weight = torch.rand(1, channels, height, width), torch.rand(filters, channels, k, k)
    x_last, weight_last = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    return min(
        _interleaved(
            {
                "first": lambda: F.conv2d(x, weight, padding=k // 2),
                "last": lambda: F.conv2d(x_last, weight_last, padding=k // 2),
            },
            rounds,
            clock,
        ).values()
    )

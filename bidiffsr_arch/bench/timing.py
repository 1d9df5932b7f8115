"""The measurement of `basicsr bench`: seconds per step, with the steps of all networks interleaved."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bidiffsr_arch.bench.layers import Layer, layer_rates
from bidiffsr_arch.bench.machine import machine, without_avx512
from bidiffsr_arch.bench.memory import peak_bytes
from bidiffsr_arch.bench.process import new_process
from bidiffsr_arch.bench.turns import in_turns
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import build_network, is_direct
from bidiffsr_arch.packed import Description, pack, save_packed

SR3, FLOAT, PACKED, OWN = "SR3 float32", "BI-DiffSR float32", "BI-DiffSR packed", "SR3 own kernels"

CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}


class Subject(NamedTuple):
    """A network to measure: an option file's ``network_g``, in float32 or packed."""

    name: str
    network_g: Mapping[str, Any]
    packed: bool = False


DIFFUSION = (
    Subject(SR3, {"type": "SR3UNet"}),
    Subject(FLOAT, {"type": "BIDiffSRUNet"}),
    Subject(PACKED, {"type": "BIDiffSRUNet"}, packed=True),
    Subject(OWN, {"type": "SR3UNet"}, packed=True),
)


def subjects_of(network_g: Mapping[str, Any]) -> tuple[Subject, ...]:
    """A network of an option file, in float32 and packed."""
    name = network_g["type"]
    return Subject(f"{name} float32", network_g), Subject(f"{name} packed", network_g, packed=True)


class Settings(NamedTuple):
    """Settings of a measurement: networks, of which the first packed one is the reference of the ratios; image size;
    number of rounds; backend of the packed networks; a key of `CLOCKS`; whether to measure memory and rates of layers.
    """

    subjects: Sequence[Subject]
    size: tuple[int, int]
    rounds: int
    backend: str | None = None
    clock: str = "wall"
    memory: bool = True
    by_layer: bool = False


class Row(NamedTuple):
    """A network: median seconds per step, peak memory (see `memory.peak_bytes`), size of its weights in bytes."""

    name: str
    seconds: float
    peak_bytes: int | None
    weight_bytes: int


class Result(NamedTuple):
    """Rows, the name of the packed network that is the reference of the ratios, the machine, and rates of layers."""

    rows: list[Row]
    packed: str
    machine: dict[str, str | int | None]
    layers: list[Layer]

    def ratios(self) -> dict[str, float]:
        """Time of each other network divided by that of the packed one."""
        seconds = {row.name: row.seconds for row in self.rows}
        packed = seconds.pop(self.packed)
        return {f"{name} / packed": value / packed for name, value in seconds.items()}


def measure(settings: Settings) -> Result:
    """Time the interleaved steps of all networks; then measure memory and rates of layers if the settings say so.

    With the backend ``numba-avx2`` the measurement runs in a new process in which neither Numba nor torch uses AVX-512,
    so that a CPU with AVX-512 shows the times of one without it.

    Raises:
        InputError: a size that the networks do not support, or a network that cannot be packed.
    """
    for subject in settings.subjects:
        _check_size(subject.name, build_network(subject.network_g, on_meta=True), settings.size)
    environment = without_avx512() if settings.backend == "numba-avx2" else {}
    if not environment or all(os.environ.get(name) == value for name, value in environment.items()):
        return _measure(settings)
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with new_process() as pool:
            return pool.submit(_measure_with_threads, settings, torch.get_num_threads()).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure_with_threads(settings: Settings, threads: int) -> Result:
    torch.set_num_threads(threads)
    return _measure(settings)


def _measure(settings: Settings) -> Result:
    torch.manual_seed(0)
    networks = {subject.name: build_network(subject.network_g).eval() for subject in settings.subjects}
    inputs = {name: inputs_of(network, settings.size) for name, network in networks.items()}
    packed = {s.name: pack(networks[s.name], settings.backend) for s in settings.subjects if s.packed}
    seconds = _step_seconds(networks | packed, inputs, settings)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in settings.subjects:
            path, peak = Path(folder, "packed.safetensors"), None
            if settings.memory:
                if subject.packed:
                    save_packed(packed[subject.name], path, Description(dict(subject.network_g)), overwrite=True)
                file = path if subject.packed else None
                peak = peak_bytes(subject.network_g, file, inputs[subject.name], settings.backend)
            network = networks[subject.name]
            size = packed[subject.name].weight_bytes if subject.packed else _bytes(network)
            rows.append(Row(subject.name, seconds[subject.name], peak, size))
    name, network = next(iter(packed.items()))
    clock = CLOCKS[settings.clock]
    layers = layer_rates(network, inputs[name], settings.rounds, clock) if settings.by_layer else []
    return Result(rows, name, machine(network.backend.name), layers)


def inputs_of(network: nn.Module, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Arguments to call a network with: an image, or (x_t, condition, time)."""
    generator = torch.Generator().manual_seed(0)
    x_t, condition = torch.rand(2, 1, 3, *size, generator=generator)
    return (x_t,) if is_direct(network) else (x_t, condition, torch.tensor([1000]))


def _check_size(name: str, network: nn.Module, size: tuple[int, int]) -> None:
    multiple = getattr(network, "multiple", 1)
    if any(side < multiple or side % multiple for side in size):
        raise InputError(
            f"expected --size to be one or two multiples of {multiple} for {name}, got {' '.join(map(str, size))}"
        )


@torch.inference_mode()
def _step_seconds(
    networks: Mapping[str, nn.Module], inputs: Mapping[str, tuple[Tensor, ...]], settings: Settings
) -> dict[str, float]:
    """Median seconds of each network; for float networks, of the faster of torch's two memory layouts."""
    steps: dict[tuple[str, str], Callable[[], object]] = {}
    for subject in settings.subjects:
        network, args = networks[subject.name], inputs[subject.name]
        steps[subject.name, "contiguous"] = partial(network, *args)
        if not subject.packed:
            last: Any = build_network(subject.network_g).eval()
            last.to(memory_format=torch.channels_last)
            args = tuple(arg.contiguous(memory_format=torch.channels_last) if arg.dim() == 4 else arg for arg in args)
            steps[subject.name, "channels_last"] = partial(last, *args)
    medians = in_turns(steps, settings.rounds, CLOCKS[settings.clock])
    return {
        subject.name: min(value for (name, _), value in medians.items() if name == subject.name)
        for subject in settings.subjects
    }


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())

"""Peak memory of a network, measured in a separate process."""

import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.bench.process import new_process
from bidiffsr_arch.networks import build_network
from bidiffsr_arch.packed import load_packed, pack


def peak_bytes(
    network_g: Mapping[str, Any], packed: Path | None, inputs: tuple[Tensor, ...], backend: str | None
) -> int:
    """Largest resident size in bytes while a network is loaded and runs one step, minus the size before.

    Where the system cannot reset a process's peak (Linux can), the size before is the peak so far. That includes the
    compilation of kernels, so the result is too small.

    Args:
        network_g: type and options of a float network.
        packed: a packed file to load instead.
    """
    arrays = [tensor.numpy() for tensor in inputs]
    with new_process() as pool:
        return pool.submit(_peak_here, network_g, packed, arrays, backend, torch.get_num_threads()).result()


def _peak_here(
    network_g: Mapping[str, Any], packed: Path | None, arrays: list, backend: str | None, threads: int
) -> int:
    torch.set_num_threads(threads)
    if packed:  # compile first, which takes memory that is not the network's
        tiny = BIDiffSRUNet(inner_channel=32, channel_mults=[1, 2], res_blocks=1, image_size=64, fp_res=[64])
        pack(tiny.eval(), backend)(*torch.rand(2, 1, 3, 64, 64), torch.tensor([1000]))
    before = _reset_peak()
    network = load_packed(packed, backend)[0] if packed else build_network(network_g).eval()
    with torch.inference_mode():
        network(*map(torch.from_numpy, arrays))
    return _peak() - before


def _reset_peak() -> int:
    """Set this process's peak resident size to the present size, where the system can; returns the peak in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc_pid_clear_refs(5)
    return _peak()


def _peak() -> int:
    """Peak resident size of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # in a child process, getrusage starts with the peak of its parent
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

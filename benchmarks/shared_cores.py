"""Speed of torch and Numba on cores that other programs use, for several waiting policies of their threads.

Each policy runs in a separate process, because OpenMP reads its environment when it is loaded. A step is timed on an
idle machine, then beside processes that only compute, with all policies interleaved over several rounds, so that a
machine that is faster for a while favours none of them. Numbers are medians.

    python benchmarks/shared_cores.py                   appends the table for this machine to benchmarks/shared_cores.md
    python benchmarks/shared_cores.py --busy 0 1 5 --policies "spin 3000" "one thread" -o ''       prints a part of it
"""

import argparse
import datetime
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm import tqdm

from bidiffsr_arch import threads

HERE = Path(__file__).parent
# Policy -> environment in which its process starts. "default" is OpenMP's own: KMP_BLOCKTIME is another OpenMP's
# variable, and only keeps this package from choosing.
POLICIES = {
    "default": {"KMP_BLOCKTIME": "200"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 5000": {"GOMP_SPINCOUNT": "5000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
}
TITLE = "# Threads on shared cores\n\nTables by `python benchmarks/shared_cores.py`, which says what is timed.\n"
ALONE, REFERENCE = "default", "one thread"
MOST_STEPS = 200

Step = Callable[[], object]


def convolutions() -> Step:
    """500 small convolutions of torch."""
    import torch

    x, layer = torch.randn(1, 16, 32, 32), torch.nn.Conv2d(16, 16, 3, padding=1)

    @torch.inference_mode()
    def step() -> None:
        for _ in range(500):
            layer(x)

    return step


def training(batch: int, size: int, **network: object) -> Step:
    """A training step of a BI-DiffSR UNet."""
    import torch

    from bidiffsr_arch import BIDiffSRUNet
    from bidiffsr_arch.config import training as options
    from bidiffsr_arch.training.objective import Objective
    from bidiffsr_arch.training.stepping import Stepping

    torch.manual_seed(0)
    unet, stepping = BIDiffSRUNet(**network), Stepping(options.Step())
    stepping.prepare(unet, torch.device("cpu"))
    optimizer = torch.optim.Adam(unet.parameters())
    images, t = [torch.randn(batch, 3, size, size) for _ in range(2)], torch.randint(2000, (batch,))
    objective = Objective(torch.nn.functional.l1_loss)
    return lambda: stepping.step(unet, optimizer, objective, [*images, t], images[0])


def demo() -> Step:
    """A training step of the network of `basicsr demo`."""
    from bidiffsr_arch.config.file import load_options
    from bidiffsr_arch.config.shipped import shipped_path

    options = load_options(str(shipped_path("demo_BIDiffSR_x4")))
    network = {key: value for key, value in options["network_g"].items() if key != "type"}
    data = options["datasets"]["train"]
    return training(data["batch_size_per_gpu"], data["gt_size"], **network)


def sampling(network: Callable, size: int) -> Step:
    """A sampling step of a packed network."""
    import torch

    x, t = torch.randn(1, 3, size, size), torch.zeros(1, dtype=torch.long)

    @torch.inference_mode()
    def step() -> None:
        network(x, x, t)

    return step


def shipped(scale: int) -> Step:
    from bidiffsr_arch import load_packed
    from bidiffsr_arch.weights import shipped_weights

    return sampling(load_packed(shipped_weights(scale))[0], 64)


def full_size(size: int) -> Step:
    from bidiffsr_arch import BIDiffSRUNet, pack

    return sampling(pack(BIDiffSRUNet().eval()), size)


def binary_layer(channels: int, size: int, kernels: bool) -> Step:
    """The forward pass, in training, of a 1-bit 3x3 convolution of a batch of four: by popcount or by conv2d."""
    import torch

    from bidiffsr_arch.binary import BINARIZERS
    from bidiffsr_arch.binary.conv import BinaryWeightConv2d
    from bidiffsr_arch.packed.training import POPCOUNT

    method = BINARIZERS["bidiffsr"]
    layer = BinaryWeightConv2d(channels, channels, 3, method.activation, method.weight)
    layer.backend = POPCOUNT._replace(min_macs=0) if kernels else None
    x = torch.randn(4, channels, size, size)
    return lambda: layer(x)


STEPS: dict[str, Callable[[], Step]] = {
    "500 convolutions, 16 channels, 32x32": convolutions,
    "training, demo's network": demo,
    "training, full size, batch 1, 64x64": lambda: training(1, 64),
    "packed, shipped x2, 64x64": lambda: shipped(2),
    "packed, shipped x4, 64x64": lambda: shipped(4),
    "packed, full size, 64x64": lambda: full_size(64),
    "packed, full size, 256x256": lambda: full_size(256),
}
# Least number of multiply-accumulates for which training uses XNOR-popcount (`packed.training.MIN_MACS`).
THRESHOLD: dict[str, Callable[[], Step]] = {
    f"1-bit layer, {channels} channels, 2^{math.log2(4 * 9 * channels**2 * size**2):.1f} MACs, "
    f"{'popcount' if kernels else 'conv2d'}": partial(binary_layer, channels, size, kernels)
    for channels, size in ((16, 32), (16, 64), (32, 32), (32, 64), (64, 32), (64, 64))
    for kernels in (False, True)
}
BUILDERS = STEPS | THRESHOLD


def timed(step: Step, seconds: float) -> list[float]:
    """Seconds of each of the steps that fit in so long. The first one, which wakes threads, counts if it is the only
    one."""
    times, end = [], time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < MOST_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times[1:] or times


def work(names: list[str], seconds: float, orders: Connection) -> None:
    """The process of a policy: build all steps, then time the one whose name is received, until that is empty."""
    steps = {name: BUILDERS[name]() for name in names}
    for step in steps.values():
        step()
    orders.send(threads.policies())
    while name := orders.recv():
        orders.send(timed(steps[name], seconds))


def spin() -> None:
    while True:
        pass


@contextmanager
def busy(context: multiprocessing.context.SpawnContext, processes: int) -> Iterator[None]:
    """Other programs that keep the cores busy during a measurement."""
    others = [context.Process(target=spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    time.sleep(1)
    yield
    for other in others:
        other.kill()
        other.join()


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Process environment with these variables, and without others that policies set."""
    names = {*variables, *threads.USERS_CHOICE, *(name for policy in POLICIES.values() for name in policy)}
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(variables)
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def measure(args: argparse.Namespace) -> dict[tuple[str, int, str], float]:
    """(policy, busy processes, step) -> seconds of a step."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, Connection] = {}
    for policy in tqdm(args.policies, unit="process"):
        workers[policy], other = context.Pipe()
        with environment(**POLICIES[policy]):
            context.Process(target=work, args=(args.steps, args.seconds / args.rounds, other), daemon=True).start()
        workers[policy].recv()
    times = defaultdict(list)
    turns = list(product(args.steps, range(args.rounds), workers.items()))
    for processes in args.busy:
        with busy(context, processes):
            for step, _, (policy, worker) in tqdm(turns, desc=f"beside {processes}"):
                worker.send(step)
                times[policy, processes, step] += worker.recv()
    return {key: statistics.median(values) for key, values in times.items()}


def table(args: argparse.Namespace, results: dict[tuple[str, int, str], float]) -> str:
    """Milliseconds of each step under each policy; alone relative to the default, else to one thread."""
    import numba
    import torch

    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    lines = [
        f"## {names[0] if names else platform.processor()}, {os.cpu_count()} cores", "",
        f"{datetime.date.today()}, torch {torch.__version__}, Numba {numba.__version__}, Python "
        f"{platform.python_version()}; milliseconds per step. In brackets: alone, how many times {ALONE}'s; beside "
        f"others, how many times {REFERENCE}'s.", "",
        "| step | other processes | " + " | ".join(args.policies) + " |", "|---|--:|" + "--:|" * len(args.policies),
    ]  # fmt: skip
    for step in args.steps:
        for processes in args.busy:
            reference = results.get((REFERENCE if processes else ALONE, processes, step))
            cells = []
            for policy in args.policies:
                value = results[policy, processes, step]
                ratio = f" ({value / reference:.2f})" if reference else ""
                cells.append(f"{value * 1e3:.1f}{ratio}")
            lines.append(f"| {step} | {processes} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES), metavar="NAME")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(BUILDERS), metavar="NAME")
    parser.add_argument("--threshold", action="store_true", help="1-bit layers of several sizes, as further rows")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 5], metavar="N", help="other processes (0 5)")
    parser.add_argument("--rounds", type=int, default=3, help="in which policies take turns (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number (%(default)s)")
    parser.add_argument("-o", "--output", default=str(HERE / "shared_cores.md"), help="'' to print only")
    args = parser.parse_args()
    args.steps += THRESHOLD if args.threshold else ()
    text = table(args, measure(args))
    print(text)
    if args.output:
        page = Path(args.output)
        before = page.read_text(encoding="utf-8") if page.exists() else TITLE
        page.write_text(f"{before.rstrip()}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()

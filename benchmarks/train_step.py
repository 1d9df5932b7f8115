"""Time and memory of a training step: this implementation, its options, and the straight-line composition.

Each row runs in its own process, for its own peak memory. In every round each process runs one step in turn, so other
load on the machine affects all rows alike. Numbers are medians over rounds; ratios are medians of the ratios per round.

    python benchmarks/train_step.py                         writes the table for this machine, benchmarks/train_step.md
    python benchmarks/train_step.py --rows composition ours -o ''       prints two rows
    python benchmarks/train_step.py --rows composition ours compile --append        appends a table; for little memory,
                                                            since each row's process holds a network and its optimizer
    python benchmarks/train_step.py --device cuda --batch 16 --size 256
    python benchmarks/train_step.py --losses --append       appends the losses of 200 steps of a small network by both
                                                            implementations; without --append they are only printed
"""

import argparse
import datetime
import multiprocessing
import platform
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from straight_line import by_indicators, by_masks, by_selection, straight_line
from torch import nn
from tqdm import tqdm

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.binary.bank import TimestepRPReLU
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.training.fused import fused_argument
from bidiffsr_arch.training.objective import Objective
from bidiffsr_arch.training.stepping import Stepping

HERE = Path(__file__).parent
# Row -> its description, the sign's polynomial of the composition, and the options of `Stepping`.
ROWS = {
    "composition": ("straight-line composition, pieces by indicators", by_indicators, {}),
    "ours": ("this implementation (on a CPU with Numba)", None, {}),
    "masks": ("straight-line composition, pieces by masks, as published", by_masks, {}),
    "selection": ("straight-line composition, pieces by torch.where", by_selection, {}),
    "conv2d": ("the same without Numba: 1-bit convolutions by conv2d forward, too", None, {}),
    "bf16": ("with amp: bf16", None, {"amp": "bf16"}),
    "checkpointing": ("with checkpointing: true", None, {"checkpointing": True}),
    "channels_last": ("with channels_last: true", None, {"channels_last": True}),
    "compile": ("with compile: true", None, {"compile": True}),
    "bf16+compile": ("with amp: bf16 and compile: true", None, {"amp": "bf16", "compile": True}),
}
SMALL = dict(
    inner_channel=16, norm_groups=4, channel_mults=[1, 2, 4], res_blocks=1, image_size=32, fp_res=[32], dropout=0.0
)


class Trainer:
    """A network and its optimizer, trained on random images."""

    def __init__(self, row: str, device: str, batch: int, size: int, network: dict | None = None) -> None:
        _, polynomial, options = ROWS[row]
        self.device = torch.device(device)
        torch.manual_seed(0)
        self.network = BIDiffSRUNet(**network or {}).to(self.device)
        self.stepping = None if polynomial else Stepping(Step.part_of(options))
        if polynomial:
            straight_line(self.network, polynomial)
        elif row != "conv2d":  # which has no options; preparing would load Numba
            self.stepping.prepare(self.network, self.device)
        options = {"lr": 1e-4, "betas": (0.9, 0.99)}
        if self.stepping:
            options |= fused_argument("Adam", self.network.parameters(), options)
        self.optimizer = torch.optim.Adam(self.network.parameters(), **options)
        self.shape = (batch, 3, size, size)

    def step(self, seed: int) -> float:
        """The loss of one step."""
        generator = torch.Generator().manual_seed(seed)
        x_t, condition, noise = (torch.randn(self.shape, generator=generator).to(self.device) for _ in range(3))
        t = torch.randint(2000, self.shape[:1], generator=generator).to(self.device)
        inputs, compare = [x_t + noise, condition, t], nn.functional.l1_loss
        if self.stepping:
            terms = self.stepping.step(self.network, self.optimizer, Objective(compare), inputs, noise)
            return terms["l_pix"].item()  # waits for a GPU
        self.optimizer.zero_grad()
        loss = compare(self.network(*inputs), noise)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def peak_memory(self) -> float:
        """GB: on a CPU the process's largest resident size, interpreter and optimizer included."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def work(row: str, args: argparse.Namespace, orders: Connection) -> None:
    """A row's process: for each seed received, run a step and send wall seconds, CPU seconds and peak memory."""
    torch.set_num_threads(args.threads)
    trainer = Trainer(row, args.device, args.batch, args.size)
    while (seed := orders.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.step(seed)
        orders.send((time.perf_counter() - wall, time.process_time() - cpu, trainer.peak_memory()))


class Steps(NamedTuple):
    """Cost of a row's steps, one number per round."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    memory: tuple[float, ...]


def measure(args: argparse.Namespace) -> dict[str, Steps]:
    """Wall seconds, CPU seconds and the peak memory so far (GB) of each row's steps after warm-up."""
    context = multiprocessing.get_context("spawn")
    ends = {}
    for row in args.rows:
        ends[row], other = context.Pipe()
        context.Process(target=work, args=(row, args, other), daemon=True).start()
    results = {row: [] for row in args.rows}
    for number in tqdm(range(args.warmup + args.steps), desc="Rounds", unit="round"):
        for row, end in ends.items():
            end.send(number)
            results[row].append(end.recv())
    for end in ends.values():
        end.send(None)
    return {row: Steps(*zip(*answers[args.warmup :], strict=True)) for row, answers in results.items()}


def median_ratio(first: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Compare steps that are neighbours in time: the load on the machine changes less between them than over a run."""
    return statistics.median(a / b for a, b in zip(first, other, strict=True))


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def table(args: argparse.Namespace, results: dict[str, Steps]) -> str:
    """The results as Markdown, each relative to the first row."""
    first = next(iter(results.values()))
    lines = [
        "# Cost of a training step",
        "",
        f"{machine(args.device)}; {args.threads} threads; Python {platform.python_version()}, torch "
        f"{torch.__version__}; {datetime.date.today()}.",
        f"Full-size network, batch {args.batch}, {args.size}x{args.size}, Adam; medians of {args.steps} steps of each "
        f"row, taken in turns, after {args.warmup}; of their ratios to the first row's, too.",
        "Memory is the largest resident size of the process, with some 0.4 GB of Python and PyTorch, 0.6 GB of weights "
        "and Adam's averages, 0.2 GB of gradients where they are kept together, and 0.1 GB of Numba where it is used."
        if args.device == "cpu"
        else "Memory is the largest that PyTorch had allocated.",
        "",
        "| | s per step | CPU s per step | images per second | times as fast | by CPU time | peak GB | of the memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, steps in results.items():
        wall, cpu, memory = statistics.median(steps.wall), statistics.median(steps.cpu), max(steps.memory)
        lines.append(
            f"| {ROWS[row][0]} | {wall:.2f} | {cpu:.2f} | {args.batch / wall:.2f} | "
            f"{median_ratio(first.wall, steps.wall):.2f} | {median_ratio(first.cpu, steps.cpu):.2f} | "
            f"{memory:.2f} | {memory / max(first.memory):.2f} |"
        )
    return "\n".join(lines) + "\n"


def losses(steps: int = 200, tail: int = 50) -> str:
    """Compare the losses of a small network, trained by both implementations from the same weights and images."""
    ours, composition = (Trainer(row, "cpu", 2, 32, SMALL) for row in ("ours", "composition"))
    # With zero biases PReLU gets exact zeros, where rounding alone decides which side's gradient is used.
    torch.manual_seed(1)
    for one, other in zip(ours.network.modules(), composition.network.modules(), strict=True):
        if isinstance(one, TimestepRPReLU):
            other.bias0.data.copy_(nn.init.normal_(one.bias0.data, std=1e-3))
    pairs = [(ours.step(seed), composition.step(seed)) for seed in tqdm(range(steps), desc="Steps", unit="step")]
    ours_mean, composition_mean = (statistics.mean(values) for values in zip(*pairs[-tail:], strict=True))
    return (
        f"Small network, {steps} steps from the same weights: mean loss of steps {steps - tail + 1} to {steps} is "
        f"{ours_mean:.6f}, of the composition {composition_mean:.6f}, "
        f"{abs(ours_mean / composition_mean - 1):.2%} apart; the first 10 losses differ by at most "
        f"{max(abs(a - b) for a, b in pairs[:10]):.1e}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="others compare to the first")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--losses", action="store_true", help="compare losses of a small network instead")
    parser.add_argument("--append", action="store_true", help="append to the output file instead of replacing it")
    parser.add_argument("-o", "--output", default=str(HERE / "train_step.md"), help="empty for none")
    args = parser.parse_args()
    text = losses() if args.losses else table(args, measure(args))
    print(text)
    if args.output and (args.append or not args.losses):
        with open(args.output, "a" if args.append else "w") as file:
            file.write("\n" + text.replace("# Cost of", "## Cost of", 1) if args.append else text)


if __name__ == "__main__":
    main()

"""`basicsr train --dry-run`: find before a long training what would stop it; nothing is written.

The option file has been checked already. This reads every image or pair of images (and checks counts, names, sizes),
counts the cost of the network, runs one iteration to measure memory, and compares the size of the checkpoints with the
free space on the disk.
"""

import io
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from bidiffsr_arch.config.data import DATA_SETS, Pairs
from bidiffsr_arch.config.file import AnyFile
from bidiffsr_arch.config.training import Paths
from bidiffsr_arch.errors import CheckFailed, InputError

GIBI = 2**30
PROBLEMS_SHOWN = 5


def dry_run(file: AnyFile, options: OrderedDict, train: Callable[[OrderedDict], None]) -> None:
    """Check everything, and print a line for each result.

    Args:
        file: the checked options.
        options: the same as plain data, for BasicSR.
        train: trains as these options say.
    Raises:
        InputError: the data, the network or the options cannot be used; the first problems are named.
        CheckFailed: the disk is too small for the checkpoints.
    """
    for phase, data in options["datasets"].items():
        print(f"data {phase}: {_check_data(data, phase, file.scale)}")
    print(f"network: {_cost(file, options)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="basicsr_dry_run_") as folder:
        seconds, saved = _one_iteration(options, folder, train)
    print(f"one iteration: done in {seconds:.1f} s with start-up, {_memory()}")
    print(f"checkpoints: {_check_disk(file, saved)}")
    print("dry run: everything is in order, nothing was written")


def _check_data(data: OrderedDict, phase: str, scale: int | None) -> str:
    """Read every image or pair of images as training or validation does."""
    from basicsr.data import build_dataset
    from tqdm import tqdm

    options = {**data, "phase": phase.split("_")[0], "scale": scale}
    if data["type"] not in DATA_SETS:
        return f"{len(build_dataset(options))} entries of {data['type']}, not checked further"
    unit = "pair" if issubclass(DATA_SETS[data["type"]], Pairs) else "image"
    dataset, problems = build_dataset(options), []
    for index in tqdm(range(len(dataset)), desc=f"data {phase}", unit=unit, leave=False):
        try:
            dataset[index]
        except InputError as error:
            problems.append(str(error))
    if problems:
        shown = "; ".join(problems[:PROBLEMS_SHOWN])
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise InputError(f"datasets: {phase}: {len(problems)} of {len(dataset)} {unit}s cannot be used: {shown}{more}")
    return f"{len(dataset)} pairs, counts, names and sizes fit" if unit == "pair" else f"{len(dataset)} images"


def _cost(file: AnyFile, options: OrderedDict) -> str:
    """The cost of one forward pass for a training crop, in the paper's accounting; for a network without diffusion that
    is the low-resolution crop."""
    import torch
    from basicsr.archs import build_network

    from bidiffsr_arch.metrics.cost import count_cost
    from bidiffsr_arch.networks import is_direct

    with torch.device("meta"), redirect_stderr(io.StringIO()):
        network = build_network(options["network_g"])
    gt_size = getattr(file.datasets["train"], "gt_size", None)
    if gt_size is None:
        return "not counted, as datasets: train: has no gt_size"
    size = gt_size // ((file.scale or 1) if is_direct(network) else 1)
    cost = count_cost(network, (size, size))
    return f"{cost.params / 1e6:.3f} M Params, {cost.ops / 1e9:.3f} G OPs at {size}x{size}"


def _one_iteration(options: OrderedDict, folder: str, train: Callable[[OrderedDict], None]) -> tuple[float, int]:
    """Train for one iteration with BasicSR's trainer, in a temporary folder.

    Returns:
        Time in seconds, start-up included, and the size in bytes of one checkpoint (network and training state).
    """
    once: OrderedDict[str, Any] = OrderedDict(options)
    once["path"] = OrderedDict(options["path"], experiments_root=folder + "/once", resume_state=None)
    once["train"] = OrderedDict(options["train"], total_iter=1)
    once["logger"] = OrderedDict(options["logger"], save_checkpoint_freq=1, use_tb_logger=False, wandb=None)
    once["logger"].pop("keep_best", None)  # nothing is validated
    once["datasets"] = OrderedDict(train=options["datasets"]["train"])
    once["val"] = None
    begin = time.monotonic()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        train(once)
    seconds = time.monotonic() - begin
    files = [file for file in Path(folder).rglob("*_1.pth")] + [file for file in Path(folder).rglob("1.state")]
    return seconds, sum(file.stat().st_size for file in files)


def _memory() -> str:
    """Peak memory of this process and of the GPU."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIBI
    if torch.cuda.is_available():
        return f"peak memory {peak:.2f} GiB, on the GPU {torch.cuda.max_memory_allocated() / GIBI:.2f} GiB"
    return f"peak memory {peak:.2f} GiB"


def _check_disk(file: AnyFile, saved: int) -> str:
    """Compare the size of all checkpoints of the run with the free space.

    Args:
        saved: size of one checkpoint in bytes.
    Raises:
        CheckFailed: there is too little space.
    """
    logger = file.logging()
    kept = count = file.length().total_iter // logger.save_checkpoint_freq
    if logger.keep_newest is not None:
        kept = min(count, logger.keep_newest + bool(logger.keep_best))
    needed = (kept + 2) * saved  # with net_g_latest.pth, and one checkpoint that is being written
    root = file.path.experiments_root if isinstance(file.path, Paths) else file.path.get("experiments_root")
    place = Path(os.path.expanduser(root or "experiments")).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{kept} of {saved / GIBI:.2f} GiB each, {needed / GIBI:.2f} GiB in all, {free / GIBI:.2f} GiB are free"
    if needed > free:
        raise CheckFailed(f"checkpoints: {text}; set logger: keep_newest, or raise save_checkpoint_freq")
    return text

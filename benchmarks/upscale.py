"""Time and memory of `basicsr upscale`, and what tiles cost in quality. Prints Markdown.

python benchmarks/upscale.py PHOTOGRAPH --weights FILE [-opt FILE] [--sizes 1024 2048] [--tiles 256 0]

For each size of the result (a square of the photograph, repeated) and each tile size (0: no tiles): seconds, peak
memory of the process, PSNR against the result without tiles, and visibility of seams, which is the mean absolute
gradient across tile borders divided by that elsewhere, relative to the same ratio without tiles (1: no seam).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import bidiffsr_arch  # noqa: F401 (patches BasicSR)
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.upscale.photo import Photo, read_photo, write_photo
from bidiffsr_arch.upscale.spans import spans
from bidiffsr_arch.upscale.upscaler import OVERLAP


def command(args: argparse.Namespace, source: Path, folder: Path, tile: int) -> tuple[float, float]:
    """Run `basicsr upscale`; returns seconds and peak memory in GB."""
    line = [sys.executable, "-m", "bidiffsr_arch.cli", "upscale", str(source), "-o", str(folder), "--quiet"]
    line += ["--weights", args.weights, "--tile", str(tile)] + (["-opt", args.opt] if args.opt else [])
    line += ["--steps", str(args.steps)] if args.steps else []
    start = time.perf_counter()
    process = subprocess.Popen(line)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(line)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


def steepness(pixels: np.ndarray, tile: int, multiple: int) -> float:
    """Mean |gradient| at tile borders divided by that elsewhere, over both axes."""
    border, elsewhere = [], []
    for axis in (0, 1):
        gradient = np.abs(np.diff(pixels.astype(float), axis=axis)).mean(axis=(1 - axis, 2))
        parts = spans(-(-pixels.shape[axis] // multiple) * multiple, tile, OVERLAP, multiple)
        mask = np.zeros(len(gradient), bool)
        mask[[edge - 1 for one, two in pairwise(parts) for edge in (two.start, one.stop)]] = True
        border.append(gradient[mask])
        elsewhere.append(gradient[~mask])
    return float(np.concatenate(border).mean() / np.concatenate(elsewhere).mean())


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("-opt")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 0])
    args = parser.parse_args()
    weights = load_weights(args.weights, args.opt)
    photograph = read_photo(args.photograph).pixels
    print(f"{date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores\n")
    print("| result | tile | seconds | peak memory | PSNR to no tiles | gradient at borders |")
    print("|---|---|---|---|---|---|", flush=True)
    for size in args.sizes:
        side = size // weights.scale
        repeats = [-(-side // length) for length in photograph.shape[:2]]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "in.png")
            write_photo(source, Photo(np.ascontiguousarray(np.tile(photograph, (*repeats, 1))[:side, :side])))
            measured = {tile: command(args, source, Path(folder, str(tile)), tile) for tile in args.tiles}
            results = {tile: read_photo(Path(folder, str(tile), "in.png")).pixels for tile in args.tiles}
        for tile, (seconds, memory) in measured.items():
            quality = border = "-"
            if 0 < tile < size and 0 in results:
                quality = f"{psnr(results[tile], results[0]):.1f} dB"
                ratio = steepness(results[tile], tile, weights.multiple) / steepness(results[0], tile, weights.multiple)
                border = f"{ratio:.4f}"
            line = f"| {size}x{size} | {tile or 'none'} | {seconds:.0f} | {memory:.2f} GB | {quality} | {border} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()

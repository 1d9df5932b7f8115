"""Quality and time by number of sampling steps, for the shipped weights or others. Prints Markdown.

    python benchmarks/steps.py HR_FOLDER LR_FOLDER [--scale 2] [--weights FILE.safetensors] [--steps 1 2 4 10 20 50]

PSNR on Y (dB, without a border of `scale` pixels) and LPIPS (AlexNet, whole images), means over the images, without
tiles; seconds per megapixel of result. The first rows are bicubic upsampling by cv2, the sampler's condition, and by
MATLAB.
"""

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from scores import lpips_or_nan
from tqdm import tqdm

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.files import read_image
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.upscale.upscaler import Upscaler
from bidiffsr_arch.weights import SHIPPED, shipped_weights  # isort: split

from basicsr.metrics import calculate_psnr  # after bidiffsr_arch, which patches what it imports

Pairs = list[tuple[np.ndarray, np.ndarray]]


def measure(name: str, upscale: Callable[[np.ndarray], np.ndarray], pairs: Pairs, scale: int) -> str:
    """A row of the table; images are BGR."""
    psnr, lpips, seconds, pixels = [], [], 0.0, 0
    for low, high in pairs:
        start = time.perf_counter()
        result = upscale(low)
        seconds += time.perf_counter() - start
        pixels += high.shape[0] * high.shape[1]
        psnr.append(calculate_psnr(result, high, crop_border=scale, test_y_channel=True))
        lpips.append(lpips_or_nan(result, high))
    return f"| {name} | {np.mean(psnr):.2f} | {np.mean(lpips):.4f} | {seconds / pixels * 1e6:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("high", metavar="HR_FOLDER", type=Path)
    parser.add_argument("low", metavar="LR_FOLDER", type=Path)
    parser.add_argument("--scale", type=int, choices=SHIPPED["clean"], default=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50])
    args = parser.parse_args()
    scale, weights = args.scale, load_weights(args.weights or shipped_weights(args.scale))
    pairs = [
        (read_image(args.low / f"{path.stem}x{scale}.png"), read_image(path))
        for path in sorted(args.high.glob("*.png"))
    ]

    def by_network(steps: int) -> Callable[[np.ndarray], np.ndarray]:
        upscaler = Upscaler(weights, steps=steps, seed=10, tile=None, device="cpu")
        return lambda low: upscaler(np.ascontiguousarray(low[..., ::-1]))[..., ::-1]

    ways = {
        "bicubic (cv2)": lambda low: cv2.resize(low, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC),
        "bicubic (MATLAB)": lambda low: imresize(low, scale),
        **{f"{steps} {'step' if steps == 1 else 'steps'}": by_network(steps) for steps in args.steps},
    }
    by_network(1)(pairs[0][0])  # compiles the kernels
    print(f"x{scale}, {args.high}: {len(pairs)} images; {date.today()}, {platform.machine()}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")  # fmt: skip
    print("| | PSNR | LPIPS | s per megapixel |\n|---|---|---|---|")
    for name, upscale in tqdm(ways.items(), disable=None):
        print(measure(name, upscale, pairs, scale), flush=True)


if __name__ == "__main__":
    main()

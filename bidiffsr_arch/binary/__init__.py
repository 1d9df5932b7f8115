"""What "1-bit" means: sign functions, binary convolutions and the table of binarizers.

It depends on PyTorch only: no UNet, no diffusion, no BasicSR. A new binarizer is a new row of `BINARIZERS`.
"""

from bidiffsr_arch.binary.bank import repeat_groups, timestep_group
from bidiffsr_arch.binary.conv import BinaryConv2d, cached_weights, set_progress
from bidiffsr_arch.binary.methods import BINARIZERS, Binarize, Binarizer

__all__ = [
    "BINARIZERS",
    "Binarize",
    "Binarizer",
    "BinaryConv2d",
    "cached_weights",
    "repeat_groups",
    "set_progress",
    "timestep_group",
]

"""What "1-bit" means: sign functions, binary convolutions and the table of binarizers. Knows nothing of UNets or
diffusion."""

from bidiffsr_arch.binary.bank import timestep_group
from bidiffsr_arch.binary.conv import BinaryConv2d, held_weights, set_progress
from bidiffsr_arch.binary.methods import BINARIZERS, Binarizer

__all__ = ["BINARIZERS", "Binarizer", "BinaryConv2d", "held_weights", "set_progress", "timestep_group"]

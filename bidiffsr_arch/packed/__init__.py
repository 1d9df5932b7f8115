"""1-bit inference: a trained network packed into bits, run by XNOR and popcount."""

from bidiffsr_arch.packed.backends import BACKENDS
from bidiffsr_arch.packed.file_format import Description, load_packed, save_packed
from bidiffsr_arch.packed.network import PackedUNet, pack

__all__ = ["BACKENDS", "Description", "PackedUNet", "load_packed", "pack", "save_packed"]

"""Bits as bits: a trained network packed and run by XNOR and popcount, and the forward pass of training so computed."""

from bidiffsr_arch.packed.backends import BACKENDS
from bidiffsr_arch.packed.file_format import Description, load_packed, save_packed
from bidiffsr_arch.packed.network import PackedUNet, pack

__all__ = ["BACKENDS", "Description", "PackedUNet", "load_packed", "pack", "save_packed"]

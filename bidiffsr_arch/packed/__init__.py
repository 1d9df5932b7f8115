"""Packed inference: 1 bit for each binary weight, convolutions by XNOR-popcount.

`pack` and `pack_layer` pack networks and layers; `save_packed` and `load_packed` write and read their files. A packed
network consists of `layers`, which call operations of a `backend` on feature maps in an `arena`. `registry` maps
architectures to packed classes (`bidiffsr`, `sr3`, `bbcu`). `training` uses popcount in the forward pass of training.
"""

from bidiffsr_arch.packed.backends import BACKENDS
from bidiffsr_arch.packed.bbcu import PackedBBCUNet
from bidiffsr_arch.packed.bidiffsr import PackedUNet
from bidiffsr_arch.packed.file_format import Description, load_packed, load_sets, save_packed
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import pack, packs
from bidiffsr_arch.packed.sequential import PackedSequential, pack_layer
from bidiffsr_arch.packed.sr3 import PackedSR3

__all__ = [
    "BACKENDS",
    "Description",
    "PackedBBCUNet",
    "PackedNetwork",
    "PackedSR3",
    "PackedSequential",
    "PackedUNet",
    "load_packed",
    "load_sets",
    "pack",
    "pack_layer",
    "packs",
    "save_packed",
]

"""Networks as functions (x_t, condition, time) -> prediction, independent of noise schedules and of BasicSR.

Files with networks end in `_arch.py`, as BasicSR's do; `blocks`, `fusion`, `norm_swish`, `recompute` and `rescale` hold
their parts.
"""

from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.sr3_arch import SR3UNet

__all__ = ["BIDiffSRUNet", "SR3UNet"]

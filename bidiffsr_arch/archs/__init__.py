"""Networks, independent of noise schedules and of BasicSR.

Diffusion networks are functions (x_t, condition, time) -> prediction; `BBCUNet` is a function of the image alone. Names
of files with networks end in `_arch.py`, as BasicSR's do; the other files contain their parts.
"""

from bidiffsr_arch.archs.bbcu_arch import BBCUNet
from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.sr3_arch import SR3UNet

__all__ = ["BBCUNet", "BIDiffSRUNet", "SR3UNet"]

"""Networks. Those for diffusion are functions (x_t, condition, time) -> prediction and know nothing of noise schedules;
`BBCUNet` is a function of the image alone."""

from bidiffsr_arch.archs.bbcu_arch import BBCUNet
from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.sr3_arch import SR3UNet

__all__ = ["BBCUNet", "BIDiffSRUNet", "SR3UNet"]

"""Networks: functions (x_t, condition, time) -> prediction. They know nothing of noise schedules."""

from bidiffsr_arch.archs.bidiffsr_arch import BIDiffSRUNet
from bidiffsr_arch.archs.sr3_arch import SR3UNet

__all__ = ["BIDiffSRUNet", "SR3UNet"]

"""Trained weights put to use: images of any size and format, upscaled."""

from bidiffsr_arch.upscale.upscaler import Upscaler

__all__ = ["Upscaler"]

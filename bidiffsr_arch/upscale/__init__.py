"""Trained weights put to use: pictures of any size and format, enlarged."""

from bidiffsr_arch.upscale.upscaler import Upscaler

__all__ = ["Upscaler"]

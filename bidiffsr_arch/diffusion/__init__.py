"""Diffusion without networks: `schedule` has the noise schedule and its samplers, `super_resolution` what is diffused.

`images` has the few operations on image tensors that both training and upscaling need. Nothing here imports BasicSR.
"""

__all__ = ["images", "schedule", "super_resolution"]

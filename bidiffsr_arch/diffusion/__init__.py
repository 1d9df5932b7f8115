"""Diffusion without networks: `schedule` has the noise schedule and samplers, `super_resolution` the diffusion target.

`schedulers` imports diffusers' classes one by one; `images` has the few operations on image tensors that both training
and upscaling need. Nothing here imports BasicSR.
"""

__all__ = ["images", "schedule", "schedulers", "super_resolution"]

"""Diffusion: the noise schedule and its samplers, and what is diffused for super-resolution."""

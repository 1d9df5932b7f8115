"""BI-DiffSR for BasicSR: importing this package registers a 1-bit diffusion UNet, its model class, data set and metrics."""

__version__ = "0.1.0"

"""Figures of what a network does, after those of the paper. Needs matplotlib, the extra `plot`.

`layers` draws single layers, `pictures` images, `curves` training logs; `probe` runs a network on a noised photograph
and records the inputs of its layers.
"""

__all__ = ["curves", "layers", "pictures", "probe"]

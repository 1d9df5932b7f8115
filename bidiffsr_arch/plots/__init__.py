"""Figures of a network's layers and results, after those of the paper. Needs matplotlib, the extra `plot`.

`layers` draws single layers, `images` trajectories and comparisons, `curves` training logs; `probe` runs a network on a
noised photograph and records the inputs of its layers.
"""

__all__ = ["curves", "images", "layers", "probe"]

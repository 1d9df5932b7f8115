"""PSNR as BasicSR's validation measures it, for figures, which need no BasicSR."""

import math

import numpy as np

Y_FROM_RGB = np.array([65.481, 128.553, 24.966]) / 255
"""Luma of ITU-R BT.601 from R, G and B in 0 .. 255, but for its offset of 16."""


def psnr_y(image: np.ndarray, reference: np.ndarray, crop_border: int) -> float:
    """PSNR (dB) on Y, as BasicSR's `calculate_psnr` with ``test_y_channel``; infinite for equal images.

    Args:
        image, reference: RGB uint8 of one shape (H, W, 3).
        crop_border: pixels that are left out at each edge.
    """
    difference = (image.astype(np.float64) - reference) @ Y_FROM_RGB
    height, width = difference.shape
    inner = difference[crop_border : height - crop_border, crop_border : width - crop_border]
    mean_square = float(np.mean(inner**2))
    return 10 * math.log10(255**2 / mean_square) if mean_square else math.inf

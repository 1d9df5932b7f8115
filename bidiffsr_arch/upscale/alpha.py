"""Colours of transparent images. The network gets colours without alpha, including those of hidden pixels."""

import cv2
import numpy as np

HIDDEN = 0.01  # opacity below which colours are noise, from rounding or lossy alpha


def fill_hidden(pixels: np.ndarray) -> np.ndarray:
    """Give hidden pixels the colour of the nearest visible one.

    Files store arbitrary colours in hidden pixels, mostly black, which upsampling would blend into visible edges.

    Args:
        pixels: uint8 or uint16, (H, W, 2) gray and alpha or (H, W, 4) RGB and alpha; other shapes have no alpha and
            are returned unchanged, as are fully hidden images.
    Returns:
        The same shape and type, with the same alpha.
    """
    if pixels.shape[2:] not in ((2,), (4,)):
        return pixels
    hidden = pixels[..., -1] < HIDDEN * np.iinfo(pixels.dtype).max
    if not hidden.any() or hidden.all():
        return pixels
    # Each visible pixel has its own label, and each hidden pixel has the label of the nearest visible one.
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((labels.max() + 1, pixels.shape[2] - 1), pixels.dtype)
    colours[labels[~hidden]] = pixels[~hidden][:, :-1]
    filled = pixels.copy()
    filled[hidden, :-1] = colours[labels[hidden]]
    return filled


def unpremultiplied(pixels: np.ndarray) -> np.ndarray:
    """Divide colours by their opacity; in TIFFs with associated alpha they are multiplied by it.

    Args:
        pixels: uint8 or uint16, (H, W, 2) or (H, W, 4), alpha last.
    """
    white = np.iinfo(pixels.dtype).max
    alpha = np.maximum(pixels[..., -1:].astype(np.float64), 1)
    divided = pixels.copy()
    divided[..., :-1] = np.minimum(np.rint(pixels[..., :-1] * (white / alpha)), white)
    return divided


def with_transparent_colour(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """An alpha channel that hides the pixels of one colour.

    Args:
        pixels: (H, W) or (H, W, 3).
        colour: () or (3,), of the same type.
    Returns:
        (H, W, 2) or (H, W, 4).
    """
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    alpha = np.where((planes == colour).all(-1, keepdims=True), 0, np.iinfo(pixels.dtype).max)
    return np.concatenate([planes, alpha.astype(pixels.dtype)], -1)

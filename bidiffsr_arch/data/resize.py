"""MATLAB's `imresize(uint8 picture, scale, 'bicubic')`, bit for bit.

Published super-resolution benchmarks were made with it. cv2 (another kernel, no antialiasing) and BasicSR's `imresize`
(no rounding between the two axes) give other pixels.
"""

import math

import numpy as np

KERNEL_WIDTH = 4  # the cubic kernel is zero outside [-2, 2]


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE Trans. ASSP 29(6), 1981, equation 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def axis_taps(length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which input samples make each output sample of one axis, and with which weights.

    Args:
        length: samples on the axis before resizing.
        scale: output size over input size; below 1 the kernel is stretched by 1 / scale (antialiasing).

    Returns:
        `(indices, weights)`, both of shape (ceil(length * scale), taps): int64 in 0 .. length - 1 (beyond an end the
        samples are mirrored, the outermost one repeated), and float64 whose rows sum to 1.
    """
    stretch = min(scale, 1.0)
    width = KERNEL_WIDTH / stretch
    # As MATLAB counts, from 1: the centre of output sample j lies at j / scale + (1 - 1 / scale) / 2.
    centres = np.arange(1, math.ceil(length * scale) + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centres - width / 2)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = cubic(stretch * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    indices = mirrored[(positions.astype(np.int64) - 1) % (2 * length)]
    used = weights.any(axis=0)
    return indices[:, used], weights[:, used]


def resize_axis(image: np.ndarray, scale: float, axis: int) -> np.ndarray:
    """Resize one axis; returns float64, neither clipped nor rounded."""
    indices, weights = axis_taps(image.shape[axis], scale)
    beside = [1] * image.ndim
    beside[axis] = -1
    # Tap by tap rather than as a matrix product: the order of additions, and so the last bit, is the same everywhere.
    return sum(
        image.take(index, axis) * weight.reshape(beside) for index, weight in zip(indices.T, weights.T, strict=True)
    )


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize a uint8 picture as MATLAB's `imresize(image, scale, 'bicubic')` does.

    Rows are resized first, then columns; after each the values are clipped to 0 .. 255 and rounded half away from zero.

    Args:
        image: uint8 of shape (H, W) or (H, W, C).
        scale: output size over input size, e.g. 1 / 4 or 2.

    Returns:
        uint8 of shape (ceil(H * scale), ceil(W * scale)[, C]).

    Raises:
        TypeError: the picture is not uint8.
        ValueError: it is not of two or three dimensions, is empty, or scale is not above 0.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"expected a uint8 picture, got {image.dtype}")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"expected a picture of shape (H, W) or (H, W, C), got {image.shape}")
    if not 0 < scale < math.inf:
        raise ValueError(f"expected a scale above 0, got {scale}")
    for axis in (0, 1):
        # Clipped values are never negative, so half away from zero is half up.
        image = np.floor(resize_axis(image, scale, axis).clip(0, 255) + 0.5).astype(np.uint8)
    return image

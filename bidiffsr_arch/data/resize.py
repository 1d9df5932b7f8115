"""MATLAB's `imresize(uint8 image, scale, 'bicubic')`, bit for bit.

The LR images of published super-resolution benchmarks are made with it. cv2 (another kernel, no antialiasing) and
BasicSR's `imresize` (no rounding between the two axes) give different pixels.
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
    """Input samples and weights of each output sample along one axis.

    Args:
        length: samples on the axis before resizing.
        scale: output size over input size; below 1 the kernel is stretched by 1 / scale (antialiasing).

    Returns:
        `(indices, weights)`, both of shape (ceil(length * scale), taps): int64 in 0 .. length - 1 (samples are mirrored
        at both ends, repeating the outermost), and float64 whose rows sum to 1.
    """
    stretch = min(scale, 1.0)
    width = KERNEL_WIDTH / stretch
    # Counted from 1, as in MATLAB: the centre of output sample j is at j / scale + (1 - 1 / scale) / 2.
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
    shape = [1] * image.ndim
    shape[axis] = -1
    # Tap by tap, not as a matrix product: the order of additions, hence the last bit, is the same on all machines.
    return sum(
        image.take(index, axis) * weight.reshape(shape) for index, weight in zip(indices.T, weights.T, strict=True)
    )


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize a uint8 image as MATLAB's `imresize(image, scale, 'bicubic')` does.

    Rows are resized first, then columns; after each the values are clipped to 0 .. 255 and rounded half away from zero.

    Args:
        image: uint8 of shape (H, W) or (H, W, C).
        scale: output size over input size, e.g. 1 / 4 or 2.

    Returns:
        uint8 of shape (ceil(H * scale), ceil(W * scale)[, C]).

    Raises:
        TypeError: the image is not uint8.
        ValueError: it does not have two or three dimensions, is empty, or scale is not above 0.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"expected a uint8 image, got {image.dtype}")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"expected an image of shape (H, W) or (H, W, C), got {image.shape}")
    if not 0 < scale < math.inf:
        raise ValueError(f"expected a scale above 0, got {scale}")
    for axis in (0, 1):
        # No clipped value is negative, so rounding half up rounds half away from zero.
        image = np.floor(resize_axis(image, scale, axis).clip(0, 255) + 0.5).astype(np.uint8)
    return image

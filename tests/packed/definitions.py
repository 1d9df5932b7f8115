"""Slow reference implementations of the packed operations, in float64 or integers, by their definitions."""

import numpy as np


def binary_accumulators(signs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Products of ±1, summed: signs (H, W, C), weight (O, C, k, k), zeros outside of the image -> int (H, W, O)."""
    height, width, _ = signs.shape
    filters, _, k, _ = weight.shape
    padded = np.pad(signs.astype(int), ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((height, width, filters), int)
    for y in range(height):
        for x in range(width):
            for dy in range(k):
                for dx in range(k):
                    out[y, x] += weight[:, :, dy, dx].astype(int) @ padded[y + dy, x + dx]
    return out


def swish(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def norm_swish(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return swish(x.astype(np.float64) * gain + bias)


def epilogue(accumulators, scale, offset, slope, add, gain=1.0) -> np.ndarray:
    """One affine, PReLU, one bias."""
    value = scale.astype(np.float64) * gain * accumulators + offset
    return np.where(value > 0, value, slope * value) + add


def conv3x3(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x (H, W, C), weight (O, C, 3, 3), zeros outside."""
    height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    taps = [(dy, dx) for dy in range(3) for dx in range(3)]
    return sum(padded[dy : dy + height, dx : dx + width] @ weight[:, :, dy, dx].T for dy, dx in taps)


def sums(x: np.ndarray) -> np.ndarray:
    """Of values and of squares, (2, C)."""
    return np.stack([x.sum((0, 1)), (x.astype(np.float64) ** 2).sum((0, 1))])


def group_norm(x: np.ndarray, groups: int, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    out = np.empty(x.shape)
    for g in np.split(np.arange(x.shape[2]), groups):
        part = x[..., g].astype(np.float64)
        out[..., g] = (part - part.mean()) / np.sqrt(part.var() + eps) * weight[g] + bias[g]
    return out

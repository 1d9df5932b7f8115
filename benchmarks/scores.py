"""LPIPS for tables, also on machines that have no weights of it."""

import functools
import sys

import numpy as np

from bidiffsr_arch.metrics.lpips import WeightsMissing, calculate_lpips, load_lpips


def lpips_or_nan(result: np.ndarray, high: np.ndarray) -> float:
    """LPIPS (AlexNet) of two images, BGR uint8 (H, W, 3); NaN if its weights are missing, which is said once."""
    return float(calculate_lpips(result, high)) if _has_weights() else float("nan")


@functools.cache
def _has_weights() -> bool:
    try:
        load_lpips("alex")
    except WeightsMissing as missing:
        print(f"LPIPS is nan: {missing}", file=sys.stderr)
        return False
    return True

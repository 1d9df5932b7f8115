"""Signs and integers of a backend's 1-bit convolution, recovered from its results."""

import numpy as np

from bidiffsr_arch.packed.layout import aligned, pack_bits, pad_last, padded


def signs_of(backend, x, shift, channels, norm=None, first=0) -> np.ndarray:
    """The signs of a backend, recovered by 1x1 convolutions: with all weights +1 but one, the result is s - 2 s_i."""
    probe = np.ones((channels + 1, channels, 1, 1), bool)
    probe[np.arange(channels), np.arange(channels)] = False
    counts = accumulators(backend, x, probe, shift, norm, first)
    return (counts[..., -1:] - counts[..., :-1]) / 2


def accumulators(backend, x, positive, shift, norm=None, first=0) -> np.ndarray:
    """The integers of a 1-bit convolution: its result with scale and slope 1 and nothing added."""
    filters, channels, k, _ = positive.shape
    parameters = aligned((4, padded(filters)))
    parameters[[0, 2], :filters] = 1
    out = aligned((*x.shape[:2], padded(filters)))
    weight = backend.binary_weight(pack_bits(positive), channels, k)
    sums = backend.binary_conv(x, weight, pad_last(shift, -np.inf), parameters, out, first=first, norm=norm)
    # sums of integers in float32 are exact here; the map and its sums agree
    np.testing.assert_allclose(sums.sum(0)[0, :filters], out[..., :filters].sum((0, 1)), atol=1e-3)
    return out[..., :filters]

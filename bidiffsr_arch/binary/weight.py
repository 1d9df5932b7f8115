"""How a real-valued convolution weight becomes ``scale * ±1``: one function a method, from weight (C_out, C_in, k, k)
to the same shape.

The gradient with respect to the weight is that of the sign alone: it is not multiplied by the scale, and none flows
    through the scale.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bidiffsr_arch.binary.sign import sign

EACH_FILTER = (1, 2, 3)


def plain(weight: Tensor, progress: Tensor | None = None) -> Tensor:
    """``sign(w)``, clipped STE (Hubara et al. 2016)."""
    return sign(weight, "clip")


def layer_mean(weight: Tensor, progress: Tensor | None = None) -> Tensor:
    """``sign(w) * mean|w|`` over the layer; the gradient passes straight to w (Zhou et al. 2016, eq. 8)."""
    return sign(weight, "straight", scale=weight.detach().abs().mean())


def channel_mean(weight: Tensor, progress: Tensor | None = None) -> Tensor:
    """``sign(w) * mean|w|`` over each output channel, clipped STE (Rastegari et al. 2016, eq. 6)."""
    return sign(weight, "clip", scale=weight.detach().abs().mean(EACH_FILTER, keepdim=True))


def standardised(weight: Tensor, progress: Tensor | None = None) -> Tensor:
    """``v = (w - mean) / std`` over each output channel, then ``sign(v) * 2^round(log2 mean|v|)``, EDE (Qin et al.
    2020, eq. 7 and 9).

    The standard deviation is the unbiased one; gradients flow through mean and standard deviation.
    """
    v = weight - weight.mean(EACH_FILTER, keepdim=True)
    v = v / v.std(EACH_FILTER, keepdim=True)
    scale = torch.exp2(torch.round(torch.log2(v.detach().abs().mean(EACH_FILTER, keepdim=True))))
    return sign(v, "ede", scale=scale, progress=progress)


WEIGHTS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "sign": plain,
    "layer_mean": layer_mean,
    "channel_mean": channel_mean,
    "standardised": standardised,
}

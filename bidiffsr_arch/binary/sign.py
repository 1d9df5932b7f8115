"""The sign function and what stands in for its derivative.

``sign(v) = +1 where v >= 0, else -1``: one bit has no zero. Its derivative is zero almost everywhere, so training
replaces it by a straight-through estimator (STE), one row of `SURROGATES` each.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor, Tensor | None], Tensor]


def clip(v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``1 where |v| <= 1, else 0``: the clipped straight-through estimator (Hubara et al. 2016, eq. 4)."""
    return (v.abs() <= 1).to(v.dtype)


def poly(v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``2 + 2v on [-1, 0), 2 - 2v on [0, 1), else 0``: the piecewise polynomial of Bi-Real Net (Liu et al. 2018, eq.
    9)."""
    return (2 - 2 * v.abs()).clamp(min=0)


def ede(v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``k t (1 - tanh(t v)^2)`` with ``t = 0.1 * 10^(2p), k = max(1 / t, 1)``: the error decay estimator (Qin et al.
    2020, eq. 13).

    Args:
        progress: p in [0, 1], a tensor without dimensions: how much of the training is done.
    """
    if progress is None:
        raise ValueError("expected the training progress for the error decay estimator, got None")
    t = 0.1 * 10 ** (2 * progress)
    return (1 / t).clamp(min=1) * t * (1 - torch.tanh(t * v) ** 2)


def straight(v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``1 everywhere``: the gradient passes as it is (DoReFa-Net's weights, Zhou et al. 2016)."""
    return torch.ones_like(v)


SURROGATES: dict[str, Surrogate] = {"clip": clip, "poly": poly, "ede": ede, "straight": straight}


class _Sign(torch.autograd.Function):
    """Forward ``scale * sign(v)``; backward ``surrogate(v)``, without the scale and without a gradient to it."""

    @staticmethod
    def forward(ctx, v: Tensor, surrogate: str, scale: Tensor | None, progress: Tensor | None) -> Tensor:
        ctx.surrogate = surrogate
        ctx.save_for_backward(v, progress)
        one = v.new_ones(()) if scale is None else scale
        return torch.where(v >= 0, one, -one)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, progress = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate](v, progress), None, None, None


def sign(v: Tensor, surrogate: str, *, scale: Tensor | None = None, progress: Tensor | None = None) -> Tensor:
    """``scale * sign(v)``, sign(0) = +1, with the gradient of `surrogate`.

    Args:
        v: any shape.
        surrogate: a key of `SURROGATES`.
        scale: positive, broadcastable to v; 1 if None. The gradient with respect to v is that of the sign alone, never
            multiplied by
            the scale, and none flows into the scale (as in the code of ReActNet and of BI-DiffSR).
        progress: training progress in [0, 1]; needed by ``ede`` when gradients are.
    """
    return _Sign.apply(v, surrogate, scale, progress)

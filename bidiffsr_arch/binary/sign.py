"""The sign function and its surrogate gradients.

``sign(v) = +1 where v >= 0, else -1``, because one bit cannot represent zero. Its derivative is zero almost everywhere,
so training replaces it by a straight-through estimator (STE), one of the rows of `SURROGATES`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def signs(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``+1 where bits, else -1``, a new tensor; several times faster than `torch.where` on a CPU.

    Args:
        bits: bool, any shape; ``v >= 0`` for the sign of v.
    """
    if torch.compiler.is_compiling():  # fused into one kernel; ONNX runtimes cannot multiply int8
        return torch.where(bits, 1.0, -1.0).to(dtype)
    return bits.to(torch.int8).mul_(2).sub_(1).to(dtype)


def signs_of(v: Tensor, scale: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """``scale where v >= 0, else -scale``, a new tensor, exactly: `signs` in fewer passes over memory.

    Args:
        v: float, any shape.
        scale: broadcasts against v; 1 if None.
        dtype: of the result; v's if None.
    """
    if torch.compiler.is_compiling():
        values = torch.where(v >= 0, 1.0, -1.0).to(dtype or v.dtype)
        return values if scale is None else values * scale
    positive = torch.ge(v, 0, out=torch.empty_like(v, dtype=dtype))  # 1 and 0
    return positive.mul_(2).sub_(1) if scale is None else positive.mul_(2 * scale).sub_(scale)


def clip(grad: Tensor, v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``1 where |v| <= 1, else 0``: the clipped straight-through estimator (Hubara et al. 2016, eq. 4)."""
    # hardtanh's gradient takes one pass over memory, but excludes its limits: use the next larger floats.
    above = 1 + torch.finfo(v.dtype).eps
    return torch.ops.aten.hardtanh_backward(grad, v, -above, above)


def poly(grad: Tensor, v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``2 + 2v on [-1, 0), 2 - 2v on [0, 1), else 0``: the piecewise polynomial of Bi-Real Net (Liu et al. 2018, eq.
    9)."""
    return v.abs().mul_(-2).add_(2).clamp_(min=0).mul_(grad)


def ede(grad: Tensor, v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``k t (1 - tanh(t v)^2)`` with ``t = 0.1 * 10^(2p), k = max(1 / t, 1)``: the error decay estimator (Qin et al.
    2020, eq. 13).

    Args:
        progress: p in [0, 1], a tensor without dimensions: the fraction of training that is done.
    Raises:
        ValueError: `progress` is None.
    """
    if progress is None:
        raise ValueError("expected the training progress for the error decay estimator, got None")
    t = 0.1 * 10 ** (2 * progress)
    return (1 / t).clamp(min=1) * t * (1 - torch.tanh(t * v) ** 2) * grad


def straight(grad: Tensor, v: Tensor, progress: Tensor | None = None) -> Tensor:
    """``1 everywhere``: the gradient passes unchanged (DoReFa-Net's weights, Zhou et al. 2016)."""
    return grad


# Each returns the gradient times the factor in its docstring, and changes none of its arguments.
SURROGATES: dict[str, Surrogate] = {"clip": clip, "poly": poly, "ede": ede, "straight": straight}

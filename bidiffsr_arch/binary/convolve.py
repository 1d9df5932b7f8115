"""The 1-bit convolution as one autograd function that recomputes in the backward pass what it need not store.

Composed of separate operations, a layer stores its shifted input, the masks of the surrogate gradients, float32
activations and weights of ±1, and the convolution's result. Here it stores only its input and its weight, which are in
memory anyway, and recomputes the signs from them. An RPReLU after the convolution needs the result for its own backward
pass: it recomputes it from the integer sums, in 16 bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bidiffsr_arch.binary.conv2d import ConvBackend, conv2d_gradients, working_dtype
from bidiffsr_arch.binary.sign import SURROGATES, signs, signs_of

INT16_MAX = torch.iinfo(torch.int16).max


class BinaryConvBackend(NamedTuple):
    """Replaces `torch.nn.functional.conv2d` in the forward pass on a CPU, with the same integers.

    pack_input: (x, shift, v) -> the signs of x + shift, in the backend's own layout.
    pack_weight: v -> the signs of v, in the backend's own layout.
    convolve: (packed input, *packed weight) -> int16 sums n, as defined by the function `convolve`.
    min_macs: multiply-accumulates of a call from which on the backend is used.
    """

    pack_input: Callable[[Tensor, Tensor | None, Tensor], Tensor]
    pack_weight: Callable[[Tensor], tuple[Tensor, ...]]
    convolve: Callable[..., Tensor]
    min_macs: int = 0

    def supports_weight(self, v: Tensor) -> bool:
        """Whether the weight can be packed: on a CPU, float32, at most 32767 taps per filter."""
        return v.device.type == "cpu" and v.dtype is torch.float32 and v.shape[1:].numel() <= INT16_MAX

    def supports(self, x: Tensor, shift: Tensor | None, v: Tensor) -> bool:
        """Whether to use the backend for a call: it supports weight and input (no float64), and the call is large
        enough."""
        has_float64 = torch.float64 in (x.dtype, None if shift is None else shift.dtype)
        macs = x.shape[0] * x.shape[2:].numel() * v.numel()
        return self.supports_weight(v) and x.device.type == "cpu" and macs >= self.min_macs and not has_float64


class ScaledSums(NamedTuple):
    """A convolution's result as ``scale * sums``, without gradients.

    sums: (B, C_out, H, W), int16, or int32 where 16 bits do not suffice. scale: float (C_out, 1, 1) or (1, 1, 1).
    """

    sums: Tensor
    scale: Tensor

    def result(self) -> Tensor:
        """``scale * sums``, a new tensor; bit-identical at each call."""
        return self.sums.to(self.scale.dtype).mul_(self.scale)


class _Convolve(torch.autograd.Function):
    """See `convolve`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        v: Tensor,
        scale: Tensor,
        progress: Tensor,
        surrogates: tuple[str, str],
        dtype: torch.dtype,
        backend: BinaryConvBackend | None,
        gradients: ConvBackend | None,
        *weight_signs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.surrogates, ctx.dtype, ctx.gradients = surrogates, dtype, gradients
        ctx.save_for_backward(x, shift, v, scale, progress)
        if backend is None:
            positive = (x if shift is None else x + shift) >= 0
            sums = F.conv2d(signs(positive, dtype), signs(weight_signs[0], dtype), padding=v.shape[-1] // 2)
            sums = sums.to(torch.int16 if v.shape[1:].numel() <= INT16_MAX else torch.int32)
        else:
            sums = backend.convolve(backend.pack_input(x, shift, v), *weight_signs)
        ctx.mark_non_differentiable(sums)
        return ScaledSums(sums, scale).result(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, v, scale, progress = ctx.saved_tensors
        activation_surrogate, weight_surrogate = (SURROGATES[name] for name in ctx.surrogates)
        r = x if shift is None else x + shift
        grad_r, grad_v = conv2d_gradients(
            grad.to(ctx.dtype),
            signs_of(r, dtype=ctx.dtype),
            signs_of(v, scale[..., None]).to(ctx.dtype),
            (ctx.needs_input_grad[0] or ctx.needs_input_grad[1], ctx.needs_input_grad[2]),
            ctx.gradients,
        )
        grad_x = grad_shift = None
        if grad_r is not None:
            grad_r = activation_surrogate(grad_r.to(r.dtype), r, progress)
            grad_x = grad_r.to(x.dtype)
            grad_shift = None if shift is None else grad_r.sum_to_size(shift.shape)
        if grad_v is not None:
            grad_v = weight_surrogate(grad_v.to(v.dtype), v, progress)
        return grad_x, grad_shift, grad_v, *[None] * (len(ctx.needs_input_grad) - 3)


def convolve(
    x: Tensor,
    shift: Tensor | None,
    v: Tensor,
    weight_signs: tuple[Tensor, ...],
    scale: Tensor,
    *,
    activation: str,
    weight: str,
    progress: Tensor,
    backend: BinaryConvBackend | None = None,
    gradients: ConvBackend | None = None,
) -> tuple[Tensor, ScaledSums]:
    """``z = scale * n`` with ``n = conv(sign(x + shift), sign(v))``; zero padding (a padded tap adds 0), stride 1.

    Signs and scale are computed in float32 even under autocast; ±1 is exact in every type of the convolution.

    Args:
        x: (B, C_in, H, W).
        shift: (B, C_in, 1, 1) or (1, C_in, 1, 1), or None.
        v: (C_out, C_in, k, k), k odd; the weight is its sign.
        weight_signs: ``(v >= 0,)`` without a backend, else the backend's ``pack_weight(v)``.
        scale: (C_out, 1, 1) or (1, 1, 1). The gradient with respect to v is that of the sign alone: it is not
            multiplied by the scale, and the scale receives none (as in the code of ReActNet and of BI-DiffSR).
        activation, weight: surrogate gradients of the two signs, keys of `SURROGATES`.
        progress: training progress in [0, 1], a tensor without dimensions.
        backend: replaces conv2d; its ``supports(x, shift, v)`` must be true.
        gradients: replaces the gradients of conv2d where it supports them.
    Returns:
        z, (B, C_out, H, W), and the numbers from which it can be recomputed.
    Raises:
        ValueError: raised by a backend if the channels of x, shift and v do not match.
    """
    surrogates, dtype = (activation, weight), working_dtype(x)
    z, sums = _Convolve.apply(x, shift, v, scale, progress, surrogates, dtype, backend, gradients, *weight_signs)
    return z, ScaledSums(sums, scale)

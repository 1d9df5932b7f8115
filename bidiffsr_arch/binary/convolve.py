"""The 1-bit convolution as one autograd function, which keeps for the backward pass only what cannot be had again.

Composed of separate operations, a layer keeps its shifted input, masks of the surrogate gradient, activations and
weights of ±1 in float32, and the convolution's result. Here it keeps its input and weight, which are there anyway.
Signs are taken again. Its result, which an RPReLU behind it needs for its own backward pass, is had again from whole
numbers, which fit two bytes, or by counting once more from signs that are packed into bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from bidiffsr_arch.binary.sign import SURROGATES, signs

LARGEST_COUNT = torch.iinfo(torch.int16).max


class Counter(NamedTuple):
    """What takes `torch.nn.functional.conv2d`'s place in the forward pass on a CPU, to the same bit.

    pack: (x, shift, v) -> the signs of x + shift, in a form of its own.
    pack_weight: v -> the signs of v, in forms of its own.
    count: (packed, *packed weight, scale) -> z, as `convolve` has it.
    least: multiplications of a layer from which on it is called.
    """

    pack: Callable[[Tensor, Tensor | None, Tensor], Tensor]
    pack_weight: Callable[[Tensor], tuple[Tensor, ...]]
    count: Callable[..., Tensor]
    least: int = 0

    def takes_weight(self, v: Tensor) -> bool:
        """Whether it can count with these weights: on a CPU, float32, at most 32767 taps a filter."""
        return v.device.type == "cpu" and v.dtype is torch.float32 and v.shape[1:].numel() <= LARGEST_COUNT

    def takes(self, x: Tensor, shift: Tensor | None, v: Tensor) -> bool:
        """Whether it can take conv2d's place, as these weights allow it and nothing is in 64 bits, and gains by it."""
        wide = torch.float64 in (x.dtype, None if shift is None else shift.dtype)
        enough = x.shape[0] * x.shape[2:].numel() * v.numel() >= self.least
        return self.takes_weight(v) and x.device.type == "cpu" and enough and not wide


class Again(NamedTuple):
    """How a result is had a second time, to the same bit: ``function(*arguments)``; none of it has gradients."""

    function: Callable[..., Tensor]
    arguments: tuple[Tensor, ...]


def working_dtype(x: Tensor) -> torch.dtype:
    """What convolutions compute in: autocast's type where it is on, else x's own."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # "meta", for one, has none
    return torch.get_autocast_dtype(kind) if on else x.dtype


class _Convolve(torch.autograd.Function):
    """See `convolve`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        shift: Tensor | None,
        v: Tensor,
        scale: Tensor,
        progress: Tensor,
        surrogates: tuple[str, str],
        dtype: torch.dtype,
        counter: Counter | None,
        *bits: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.surrogates, ctx.dtype = surrogates, dtype
        ctx.save_for_backward(x, shift, v, scale, progress)
        if counter is None:
            positive = (x if shift is None else x + shift) >= 0
            counts = F.conv2d(signs(positive, dtype), signs(bits[0], dtype), padding=v.shape[-1] // 2)
            kept = counts.to(torch.int16 if v.shape[1:].numel() <= LARGEST_COUNT else torch.int32)
            z = counts.to(scale.dtype).mul_(scale)
        else:
            kept = counter.pack(x, shift, v)
            z = counter.count(kept, *bits, scale)
        ctx.mark_non_differentiable(kept)
        return z, kept

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, v, scale, progress = ctx.saved_tensors
        of_activation, of_weight = (SURROGATES[name] for name in ctx.surrogates)
        r = x if shift is None else x + shift
        padding = v.shape[-1] // 2
        grad_r, grad_v, _ = torch.ops.aten.convolution_backward(
            grad.to(ctx.dtype),
            signs(r >= 0, ctx.dtype),
            signs(v >= 0, scale.dtype).mul_(scale[..., None]).to(ctx.dtype),
            bias_sizes=None,
            stride=[1, 1],
            padding=[padding, padding],
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=[ctx.needs_input_grad[0] or ctx.needs_input_grad[1], ctx.needs_input_grad[2], False],
        )
        grad_x = grad_shift = None
        if grad_r is not None:
            grad_r = of_activation(grad_r.to(r.dtype), r, progress)
            grad_x = grad_r.to(x.dtype)
            grad_shift = None if shift is None else grad_r.sum_to_size(shift.shape)
        if grad_v is not None:
            grad_v = of_weight(grad_v.to(v.dtype), v, progress)
        return grad_x, grad_shift, grad_v, *[None] * (len(ctx.needs_input_grad) - 3)


def convolve(
    x: Tensor,
    shift: Tensor | None,
    v: Tensor,
    bits: tuple[Tensor, ...],
    scale: Tensor,
    *,
    activation: str,
    weight: str,
    progress: Tensor,
    counter: Counter | None = None,
) -> tuple[Tensor, Again]:
    """``z = scale * n`` with ``n = conv(sign(x + shift), sign(v))``; zero padding (a padded tap adds 0), stride 1.

    Sign and scale are computed in float32 under autocast, too; the ±1 that are convolved are exact in any type.

    Args:
        x: (B, C_in, H, W).
        shift: (B, C_in, 1, 1) or (1, C_in, 1, 1), or None.
        v: (C_out, C_in, k, k), k odd, what the signs of the weight are taken from.
        bits: ``v >= 0`` alone, or the counter's ``pack_weight(v)``.
        scale: (C_out, 1, 1) or (1, 1, 1). The gradient with respect to v is that of the sign alone, never multiplied
            by the scale, and none flows into the scale (as in the code of ReActNet and of BI-DiffSR).
        activation, weight: surrogate gradients of the two signs, keys of `SURROGATES`.
        progress: training progress in [0, 1], without dimensions.
        counter: takes conv2d's place; its ``takes(x, shift, v)`` must be true.
    Returns:
        z, (B, C_out, H, W), and how to have it again.
    Raises:
        ValueError: by a counter, where the channels of x, shift and v do not match.
    """
    function, packed = (torch.mul, ()) if counter is None else (counter.count, bits)
    z, kept = _Convolve.apply(x, shift, v, scale, progress, (activation, weight), working_dtype(x), counter, *bits)
    return z, Again(function, (kept, *packed, scale))

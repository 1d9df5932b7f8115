"""Convolutions of real numbers in training, and their gradients; a backend may compute both on a CPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHANNELS_LAST_PIXELS = range(32 * 32, 64 * 64 + 1) if torch.backends.cpu.get_cpu_capability() == "AVX512" else range(0)
"""Without a backend, maps of so many pixels are changed to channels_last for the backward pass of convolutions larger
than 1x1 in float32: with AVX-512 oneDNN's gradients then take three quarters of the time, changes of layout included.
On larger maps the changes take as long as they save, smaller ones gain nothing, and with AVX2 the gradients take longer
in channels_last.
"""


class ConvBackend(NamedTuple):
    """Replaces `torch.nn.functional.conv2d` and its gradients, stride 1, zero padding of half a kernel.

    supports: (x, weight) -> whether the other functions can and should be used.
    convolve: (x, weight, bias or None) -> the result.
    input_gradient: (gradient of the result, weight) -> the gradient of x.
    weight_gradient: (gradient of the result, x) -> the gradient of the weight.
    """

    supports: Callable[[Tensor, Tensor], bool]
    convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    input_gradient: Callable[[Tensor, Tensor], Tensor]
    weight_gradient: Callable[[Tensor, Tensor], Tensor]


def working_dtype(x: Tensor) -> torch.dtype:
    """The type in which convolutions are computed: autocast's if it is enabled, else x's."""
    kind = x.device.type
    # "meta" has no autocast. torch.compile of torch 2.11 cannot trace `torch.amp.is_autocast_available`.
    enabled = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else x.dtype


def conv2d_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool], backend: ConvBackend | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of ``conv2d(x, weight)``, zero padding, for both, in the layout of x."""
    if backend is not None and backend.supports(x, weight):
        return (
            backend.input_gradient(grad, weight) if needed[0] else None,
            backend.weight_gradient(grad, x) if needed[1] else None,
        )
    padding, tensors = weight.shape[-1] // 2, [grad, x, weight]
    suitable = x.shape[2:].numel() in CHANNELS_LAST_PIXELS and x.dtype is torch.float32
    relaid = suitable and padding > 0 and x.is_cpu and x.is_contiguous()
    if relaid:
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    gradients = torch.ops.aten.convolution_backward(
        *tensors,
        bias_sizes=None,
        stride=[1, 1],
        padding=[padding, padding],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=1,
        output_mask=[*needed, False],
    )
    grad_x, grad_weight, _ = (g.contiguous() if relaid and g is not None else g for g in gradients)
    return grad_x, grad_weight


class _Conv2d(torch.autograd.Function):
    """See `conv2d`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, backend: ConvBackend) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.backend = backend
        return backend.convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gradients = conv2d_gradients(grad, x, weight, (needs_x, needs_weight), ctx.backend)
        return *gradients, grad.sum((0, 2, 3)) if needs_bias else None, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: ConvBackend | None = None) -> Tensor:
    """``conv2d(x, weight) + bias``, stride 1, zero padding, by the backend where a gradient is needed that it supports.

    Without gradients torch's function is used, so that validation during training computes as a test does.

    Args:
        x: (B, C_in, H, W).
        weight: (C_out, C_in, k, k), k odd.
        bias: (C_out,).
    Returns:
        (B, C_out, H, W).
    """
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if trains and backend is not None and working_dtype(x) is x.dtype and backend.supports(x, weight):
        return _Conv2d.apply(x, weight, bias, backend)
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

"""Costs of operators in the paper's accounting: a table from PyTorch's operators to costs.

A multiply-accumulate counts 1. A normalisation that computes its own statistics (GroupNorm, LayerNorm, InstanceNorm)
counts 5 per element; BatchNorm with fixed statistics is one multiply-accumulate per element and counts 1. Interpolation
and warping count their taps per output element: nearest 1, bilinear 4, bicubic 16. An average is a convolution with a
constant kernel and counts 1 per averaged element: XNOR-Net's map K therefore counts, per pixel, C for the channel mean
and k² for the box.

Element-wise operators are free (activations, PReLU, bias, additions, products such as that with K or with a gate), and
so are those that only move, copy, reshape or create data. An operator in none of these tables has no cost, and the
caller must report it as uncounted. Costs are fvcore's, with which the paper's figures agree, except for BatchNorm with
fixed statistics (fvcore: 2).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

Rule = Callable[[tuple, Any], int]

aten = torch.ops.aten


def per_output(price: int) -> Rule:
    """`price` for each element of the result."""
    return lambda args, out: price * out.numel()


def per_input(price: int, argument: int = 0) -> Rule:
    """`price` for each element of an argument."""
    return lambda args, out: price * args[argument].numel()


def batch_norm(args: tuple, out: Any) -> int:
    """``native_batch_norm(x, weight, bias, mean, var, training, ...)``; InstanceNorm calls it with training=True."""
    return (5 if args[5] else 1) * args[0].numel()


def average_pool(args: tuple, out: Any) -> int:
    """``avg_pool2d(x, kernel_size, ...)`` with one or two kernel sizes."""
    height, *width = args[1]
    return height * (width[0] if width else height) * out.numel()


def grid_sample(args: tuple, out: Any) -> int:
    """``grid_sampler_2d(x, grid, mode, ...)`` with bilinear, nearest and bicubic as modes 0, 1 and 2."""
    return (4, 1, 16)[args[2]] * out.numel()


PRICES: dict[Any, Rule] = {
    aten.native_group_norm: per_input(5),
    aten.native_layer_norm: per_input(5),
    aten.native_batch_norm: batch_norm,
    aten.upsample_nearest1d: per_output(1),
    aten.upsample_nearest2d: per_output(1),
    aten.upsample_nearest3d: per_output(1),
    aten.upsample_bilinear2d: per_output(4),
    aten.upsample_bicubic2d: per_output(16),
    aten.grid_sampler_2d: grid_sample,
    aten.mean: per_input(1),
    aten.avg_pool2d: average_pool,
    aten._adaptive_avg_pool2d: per_input(1),
    aten.mv: per_input(1),
    aten.dot: per_input(1),
    aten.addmv: per_input(1, argument=1),
}

ACTIVATIONS_AND_SUMS = """
    _log_softmax _prelu_kernel _safe_softmax _softmax glu hardswish hardswish_ log_sigmoid_forward rrelu_with_noise sum
"""
MOVES = """
    _to_copy _unsafe_view cat channel_shuffle col2im constant_pad_nd copy_ embedding flip gather im2col index index_put
    index_put_ index_select masked_select pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d roll scatter
    select_scatter slice_scatter squeeze_ stack take transpose_ tril triu unsqueeze_
"""
CREATIONS = """
    arange bernoulli bernoulli_ empty empty_like empty_strided eye fill_ full full_like linspace new_empty
    new_empty_strided new_full new_ones new_zeros normal_ ones ones_like rand rand_like randint randn randn_like
    scalar_tensor uniform_ zero_ zeros zeros_like
"""
# Free, like the operators that PyTorch itself tags as pointwise or marks as views.
FREE = {getattr(aten, name) for name in (ACTIVATIONS_AND_SUMS + MOVES + CREATIONS).split()}


def price(operator: OpOverload, args: tuple, kwargs: dict[str, Any], out: Any) -> int | None:
    """The cost of one call of an operator; None if it has no rule.

    Args:
        operator: as passed to `TorchDispatchMode.__torch_dispatch__`.
        args, kwargs, out: its arguments and its result; only their shapes matter.
    """
    family = operator.overloadpacket
    if family in flop_registry:  # PyTorch's FLOP formulas count a multiply-accumulate as 2
        return flop_registry[family](*args, **kwargs, out_val=out) // 2
    if family in PRICES:
        return PRICES[family](args, out)
    if family in FREE or operator.is_view or torch.Tag.pointwise in operator.tags:
        return 0
    return None

"""What an operation costs in the paper's accounting: one table from PyTorch's operators to their price.

A multiply-accumulate counts 1. A normalisation that measures its own statistics (GroupNorm, LayerNorm, InstanceNorm)
counts 5 an element; a BatchNorm with fixed statistics is one multiply-accumulate an element and counts 1. Interpolation
and warping count their taps for each output element: nearest 1, bilinear 4, bicubic 16. An average counts 1 for each
element that is averaged, as the convolution with a constant kernel that it is: XNOR-Net's map K so counts, at each
pixel, C for the channel mean and k² for the box.

Everything element-wise counts nothing (activations, PReLU, bias, additions, products such as that with K or with a
gate), nor does what only moves, copies, reshapes or creates. An operator in none of these tables has no price, and
whoever counts has to say so. The prices are fvcore's, with which the paper's figures agree, but for BatchNorm with
fixed statistics (fvcore: 2).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

Price = Callable[[tuple, Any], int]

aten = torch.ops.aten


def each_output(price: int) -> Price:
    return lambda args, out: price * out.numel()


def each_input(price: int, argument: int = 0) -> Price:
    return lambda args, out: price * args[argument].numel()


def batch_norm(args: tuple, out: Any) -> int:
    """``native_batch_norm(x, weight, bias, mean, var, training, ...)``; InstanceNorm comes here with training, too."""
    return (5 if args[5] else 1) * args[0].numel()


def average_pool(args: tuple, out: Any) -> int:
    """``avg_pool2d(x, kernel_size, ...)``, a kernel of one number or two."""
    height, *width = args[1]
    return height * (width[0] if width else height) * out.numel()


def grid_sample(args: tuple, out: Any) -> int:
    """``grid_sampler_2d(x, grid, mode, ...)`` with bilinear, nearest and bicubic as modes 0, 1 and 2."""
    return (4, 1, 16)[args[2]] * out.numel()


PRICES: dict[Any, Price] = {
    aten.native_group_norm: each_input(5),
    aten.native_layer_norm: each_input(5),
    aten.native_batch_norm: batch_norm,
    aten.upsample_nearest1d: each_output(1),
    aten.upsample_nearest2d: each_output(1),
    aten.upsample_nearest3d: each_output(1),
    aten.upsample_bilinear2d: each_output(4),
    aten.upsample_bicubic2d: each_output(16),
    aten.grid_sampler_2d: grid_sample,
    aten.mean: each_input(1),
    aten.avg_pool2d: average_pool,
    aten._adaptive_avg_pool2d: each_input(1),
    aten.mv: each_input(1),
    aten.dot: each_input(1),
    aten.addmv: each_input(1, argument=1),
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
# Free beside what PyTorch itself tags as point-wise or marks as a view.
FREE = {getattr(aten, name) for name in (ACTIVATIONS_AND_SUMS + MOVES + CREATIONS).split()}


def price(operator: OpOverload, args: tuple, kwargs: dict[str, Any], out: Any) -> int | None:
    """What a call of an operator costs; None where no rule says.

    Args:
        operator: as a TorchDispatchMode gets it.
        args, kwargs, out: its arguments and its result; only their shapes matter.
    """
    family = operator.overloadpacket
    if family in flop_registry:  # PyTorch's formulas for what multiplies and accumulates: 2 for each time
        return flop_registry[family](*args, **kwargs, out_val=out) // 2
    if family in PRICES:
        return PRICES[family](args, out)
    if family in FREE or operator.is_view or torch.Tag.pointwise in operator.tags:
        return 0
    return None

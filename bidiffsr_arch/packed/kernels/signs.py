"""Pack the signs of feature maps into bits, one row of an image at a time."""

from typing import NamedTuple

from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    LANES,
    MASK,
    constant,
    load,
    multiply_add,
    procedure,
    store,
    swish,
)


def _bits(b, value, shift, target) -> None:
    """Bit i of `target` = (value + shift >= 0) of lane i; padding channels have shift -inf, so their bit is 0."""
    positive = b.fcmp_ordered(">=", b.fadd(value, load(b, shift)), constant(0.0))
    store(b, b.bitcast(positive, MASK), target, align=1)


@procedure
def plain_signs(b, x, shift, bits) -> None:
    """LANES bits of x + shift."""
    _bits(b, load(b, x), shift, bits)


def norm_swished(b, x, gain, bias) -> Value:
    """swish(gain * x + bias) of LANES channels, which x holds; gain, bias: addresses."""
    return swish(b, multiply_add(b, x, load(b, gain), load(b, bias)))


@procedure
def norm_swish_signs(b, x, gain, bias, shift, value, bits) -> None:
    """value = swish(gain * x + bias), and LANES bits of value + shift."""
    result = norm_swished(b, load(b, x), gain, bias)
    store(b, result, value)
    _bits(b, result, shift, bits)


@procedure
def norm_swish_vector(b, x, gain, bias, value) -> None:
    """value = swish(gain * x + bias) of LANES channels."""
    store(b, norm_swished(b, load(b, x), gain, bias), value)


@procedure
def norm_vector(b, x, gain, bias, value) -> None:
    """value = gain * x + bias of LANES channels."""
    store(b, multiply_add(b, load(b, x), load(b, gain), load(b, bias)), value)


BIT_BYTES = LANES // 8


class Channels(NamedTuple):
    """Parameters that are applied before the sign: `vectors` vectors of channels, and the addresses of gain, bias and
    shift.
    """

    vectors: int
    gain: int
    bias: int
    shift: int


@helper
def sign_row(x, channels, normalise, values, bits, width) -> None:
    """Bits (and, where `normalise`, values) of `width` pixels.

    x, bits: `Strided`. values: address of all channels of all pixels, side by side.
    """
    vectors = channels.vectors
    if normalise:
        for i in range(width):
            for k in range(vectors):
                d = k * BYTES
                norm_swish_signs(
                    x.start + i * x.step + d,
                    channels.gain + d,
                    channels.bias + d,
                    channels.shift + d,
                    values + (i * vectors + k) * BYTES,
                    bits.start + i * bits.step + k * BIT_BYTES,
                )
    else:
        for i in range(width):
            for k in range(vectors):
                d = k * BYTES
                plain_signs(x.start + i * x.step + d, channels.shift + d, bits.start + i * bits.step + k * BIT_BYTES)

"""Vectors of float32 in Numba kernels, written in LLVM's vector types: the same source becomes AVX-512, AVX2, SSE or
NEON.

Kernels pass addresses and strides as int64, in bytes, or as the named tuples of `places`. The functions here run while
a kernel is compiled; `b` is LLVM's instruction builder.
"""

import math
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _features() -> frozenset[str]:
    """Instruction sets that Numba may use on this machine, by LLVM's names."""
    config: Any = numba.config
    if config.CPU_FEATURES is not None:
        return frozenset(name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+"))
    if config.CPU_NAME is not None:
        return frozenset()
    return frozenset(name for name, present in llvmlite.binding.get_host_cpu_features().items() if present)


FEATURES = _features()
WIDE = "avx512f" in FEATURES
LANES = 16 if WIDE else 8
BYTES = 4 * LANES

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(I32, LANES)
MASK = ir.IntType(LANES)


def constant(value: float, vector: ir.VectorType = FLOATS) -> ir.Constant:
    """`value` in every lane."""
    return ir.Constant(vector, [value] * vector.count)


def int64(value: int) -> ir.Constant:
    """`value` as an operand."""
    return ir.Constant(I64, value)


def offset(b: IRBuilder, address: Value, distance: int | Value) -> Value:
    """``address + distance``."""
    return b.add(address, int64(distance) if isinstance(distance, int) else distance)


def opaque(b: IRBuilder, address: Value) -> Value:
    """`address`, about which LLVM can assume nothing.

    An address that a loop carries this way stays in a register of its own. LLVM would replace it by a base and an
    index, and a vector instruction with such an operand is split into two.
    """
    return b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [address], False)


def load(b: IRBuilder, address: Value, type_: ir.Type = FLOATS, align: int = 4) -> Value:
    """A value of `type_` at an address."""
    return b.load(b.inttoptr(address, type_.as_pointer()), align=align)


def store(b: IRBuilder, value: Value, address: Value, align: int = 4) -> None:
    """Write a value to an address."""
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)


def spread(b: IRBuilder, scalar: Value, vector: ir.VectorType = FLOATS) -> Value:
    """`scalar` in every lane."""
    one = b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(one, one, constant(0, ir.VectorType(I32, vector.count)))


def suffix(vector: ir.VectorType) -> str:
    """LLVM's name of a vector type in names of intrinsics."""
    element = vector.element
    return f"v{vector.count}" + (f"i{element.width}" if isinstance(element, ir.IntType) else "f32")


def call(b: IRBuilder, name: str, *arguments: Value) -> Value:
    """LLVM's intrinsic `name` on vectors of one type."""
    vector = arguments[0].type
    function = ir.FunctionType(vector, [vector] * len(arguments))
    return b.call(cgutils.get_or_insert_function(b.module, function, f"llvm.{name}.{suffix(vector)}"), arguments)


def multiply_add(b: IRBuilder, x: Value, y: Value, z: Value) -> Value:
    """``x * y + z``, in one instruction where the CPU has it."""
    return call(b, "fmuladd", x, y, z)


EXP2 = (1.0, 0.69314720574, 0.24022646891, 0.05550328777, 0.00961848896, 0.00133999314, 0.00015345812)
"""2^f on |f| <= 1/2 by powers of f, the polynomial of degree 6 of least relative error, 1.9e-9."""

MAGIC = 1.5 * 2.0**23
"""Neighbouring float32 are 1 apart here, and their last bits count up: adding it rounds to an integer."""


def swish(b: IRBuilder, x: Value) -> Value:
    """``x / (1 + exp(-x))``.

    exp(-x) = 2^n 2^f with n the nearest integer to -x / ln 2 and |f| <= 1/2. ``t = -x / ln 2 + MAGIC`` ends in the
    bits of n; shifted to the exponent and added to the bits of 2^f as integers, they multiply it by 2^n. |x| is
    limited to 87 in the exponent, so that n stays within the exponents of float32.
    """
    limited = x
    for bound, beyond in ((87.0, ">"), (-87.0, "<")):
        limited = b.select(b.fcmp_ordered(beyond, limited, constant(bound)), constant(bound), limited)
    per_ln2 = constant(float(np.float32(-1 / math.log(2))))
    t = multiply_add(b, limited, per_ln2, constant(MAGIC))
    f = multiply_add(b, limited, per_ln2, b.fneg(b.fsub(t, constant(MAGIC))))
    coefficients = [constant(float(np.float32(coefficient))) for coefficient in EXP2]
    power = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        power = multiply_add(b, power, f, coefficient)
    exponent = b.shl(b.bitcast(t, INTS), constant(23, INTS))
    power = b.bitcast(b.add(b.bitcast(power, INTS), exponent), FLOATS)
    return _quotient(b, x, b.fadd(power, constant(1.0)))


def _quotient(b: IRBuilder, x: Value, y: Value) -> Value:
    """``x / y`` for y from 1 to 2^126. With AVX-512, where a division takes as long as the rest of `swish`, by one step
    of Newton's method from an approximation with an error of 2^-14.
    """
    if not WIDE:
        return b.fdiv(x, y)
    kind = ir.FunctionType(FLOATS, [FLOATS, FLOATS, ir.IntType(16)])
    function = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx512.rcp14.ps.512")
    inverse = b.call(function, [y, constant(0.0), ir.Constant(ir.IntType(16), -1)])
    error = multiply_add(b, b.fneg(y), inverse, constant(1.0))
    return b.fmul(x, multiply_add(b, inverse, error, inverse))


def repeat(
    b: IRBuilder, count: Value, carried: list[Value], body: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """``for i in range(count): carried = body(i, carried)`` with count >= 1; returns the last `carried`."""
    before = b.block
    loop, after = b.append_basic_block("loop"), b.append_basic_block("after")
    b.branch(loop)
    b.position_at_end(loop)
    i = b.phi(I64)
    i.add_incoming(int64(0), before)
    phis = [b.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    results = body(i, phis)
    following = b.add(i, int64(1))
    i.add_incoming(following, b.block)
    for phi, value in zip(phis, results, strict=True):
        phi.add_incoming(value, b.block)
    b.cbranch(b.icmp_signed("<", following, count), loop, after)
    b.position_at_end(after)
    return results


def untyped_intrinsic(typing: Callable) -> Callable[..., Any]:
    """`numba.extending.intrinsic`, typed as a decorator whose result takes the kernel's arguments."""
    return intrinsic(typing)


def procedure(emit: Callable) -> Callable[..., Any]:
    """Decorator: `emit(b, *operands)`, which writes instructions, becomes a function for Numba kernels.

    Its arguments are int64, or named tuples of int64 (`places`), which `emit` gets as named tuples of LLVM values.
    """

    def typing(context: Any, *arguments: types.Type) -> tuple[Any, Callable]:
        def generate(target: Any, b: IRBuilder, signature: Any, values: Any) -> Value:
            operands = [_operand(target, b, *pair) for pair in zip(signature.args, values, strict=True)]
            emit(b, *operands)
            return target.get_dummy_value()

        integers = [kind if isinstance(kind, types.BaseNamedTuple) else types.int64 for kind in arguments]
        return types.void(*integers), generate

    return untyped_intrinsic(update_wrapper(typing, emit, assigned=("__name__", "__doc__"), updated=()))


def _operand(target: Any, b: IRBuilder, kind: Any, value: Value) -> Any:
    """An argument as `emit` gets it."""
    is_struct = isinstance(kind, types.BaseNamedTuple)
    if not is_struct:
        return value
    fields = zip(cgutils.unpack_tuple(b, value, len(kind)), kind.types, strict=True)
    return kind.instance_class(*(target.cast(b, field, field_kind, types.int64) for field, field_kind in fields))


def _address(context: Any, array: types.Type) -> tuple[Any, Callable]:
    """Where the data of an array starts, int64."""

    def generate(target: Any, b: IRBuilder, signature: Any, values: Any) -> Value:
        (kind,) = signature.args
        return b.ptrtoint(target.make_array(kind)(target, b, values[0]).data, I64)

    return types.int64(array), generate


address = untyped_intrinsic(_address)


@procedure
def clear(b, address, size) -> None:
    """Write `size` bytes of zeros. Kernels write through addresses only, because Numba removes assignments to an array
    that is afterwards read through its address.
    """
    cgutils.memset(b, b.inttoptr(address, I8.as_pointer()), size, 0)


@procedure
def copy(b, target, source, size) -> None:
    """Copy `size` bytes from source to target, which do not overlap."""
    cgutils.raw_memcpy(b, b.inttoptr(target, I8.as_pointer()), b.inttoptr(source, I8.as_pointer()), size, int64(1))


def fetch(b: IRBuilder, address: Value, *, write: bool = False) -> None:
    """Prefetch the cache line of an address that is soon read or written; the address need not be valid."""
    pointer = b.inttoptr(address, I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    function = b.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    b.call(function, [pointer, *(ir.Constant(I32, number) for number in (int(write), 3, 1))])

"""Parallel loops on Numba's threads.

Numba's `prange` would compile a loop three times (as a function, in that function's wrapper and in the kernel) after
passes that search for such loops, which together take most of a kernel's compilation. `split` runs the same loops on
Numba's threads through the same entry point, `numba_parallel_for`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.np.ufunc.parallel import _launch_threads as launch_threads

from bidiffsr_arch.packed.kernels.vector_ir import I8, I32, I64, int64, untyped_intrinsic

BYTE = I8.as_pointer()
LOOP = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), I64.as_pointer(), I64.as_pointer(), BYTE])
"""A loop as threads call it, one of NumPy's generalized ufuncs: args, dimensions, steps, data."""
PARALLEL_FOR = ir.FunctionType(
    ir.VoidType(),
    [LOOP.as_pointer(), BYTE.as_pointer(), I64.as_pointer(), I64.as_pointer(), BYTE, I64, I64, I32],
)
"""Numba's function that runs a loop on threads: the loop, its arguments, the numbers of inner dimensions, arrays and
threads.
"""


@untyped_intrinsic
def split(context: Any, count: Any, body: Any, arguments: Any) -> tuple[Any, Callable]:
    """Split ``range(count)`` into one part per thread, and call ``body(part, first, last, *arguments)`` for each.

    body: a helper that returns nothing and cannot raise. part: number of the part, which is ``range(first, last)``.
    """
    inner = body.get_call_type(context, (types.int64,) * 3 + tuple(arguments.types), {})

    def generate(target: Any, b: IRBuilder, signature: Any, values: Any) -> Value:
        count, _, packed = values
        launch_threads()
        target.active_code_library._reload_init.add(launch_threads)
        get_threads = ir.FunctionType(I32, [])
        threads = b.call(cgutils.get_or_insert_function(b.module, get_threads, "get_num_threads"), [])
        parts = b.sext(threads, I64)
        parts = b.select(b.icmp_signed("<", count, parts), count, parts)
        work = cgutils.alloca_once_value(b, cgutils.pack_struct(b, [count, parts, packed]))
        loop = _loop(target, b, work.type, body, inner, len(arguments))
        args, dimensions, steps = (cgutils.alloca_once(b, kind) for kind in (BYTE, I64, I64))
        data = b.bitcast(work, BYTE)
        for value, place in ((data, args), (parts, dimensions), (int64(1), steps)):
            b.store(value, place)
        run = cgutils.get_or_insert_function(b.module, PARALLEL_FOR, "numba_parallel_for")
        b.call(run, [loop, args, dimensions, steps, data, int64(0), int64(1), threads])
        return target.get_dummy_value()

    return types.void(types.int64, body, arguments), generate


def _loop(target: Any, b: IRBuilder, work: ir.PointerType, body: Any, inner: Any, number: int) -> ir.Function:
    """The function that threads call for dimensions[0] parts, which start with part ``args[0] - data``.

    Numba passes in args[0] the address of an element of an array. The array is taken to begin at `data` and to have
    elements of one byte, so the address encodes the number of the part; nothing is read from it.
    """
    compiled = body.dispatcher.overloads[inner.args]
    target.add_linking_libs([compiled.library])
    loop = ir.Function(b.module, LOOP, b.module.get_unique_name(f"{b.function.name}.loop"))
    loop.linkage = "internal"
    inside = IRBuilder(loop.append_basic_block())
    args, dimensions, _, data = loop.args
    count, parts, packed = cgutils.unpack_tuple(inside, inside.load(inside.bitcast(data, work)), 3)
    arguments = cgutils.unpack_tuple(inside, packed, number)
    first = inside.sub(inside.ptrtoint(inside.load(args), I64), inside.ptrtoint(data, I64))

    with cgutils.for_range(inside, inside.load(dimensions)) as each:  # no iteration for a thread without parts
        part = inside.add(first, each.index)
        ends = [inside.sdiv(inside.mul(inside.add(part, int64(more)), count), parts) for more in (0, 1)]
        target.call_internal_no_propagate(inside, compiled.fndesc, inner, [part, *ends, *arguments])
    inside.ret_void()
    return loop

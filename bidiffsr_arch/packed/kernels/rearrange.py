"""Permutations of channels: PixelShuffle(2), PixelUnshuffle(2), and the channel shuffle of two maps."""

from llvmlite import ir
from llvmlite.ir import Value

from bidiffsr_arch.packed.kernels.compile import helper, kernel
from bidiffsr_arch.packed.kernels.split import split
from bidiffsr_arch.packed.kernels.vector_ir import (
    BYTES,
    I32,
    LANES,
    address,
    clear,
    load,
    multiply_add,
    offset,
    procedure,
    store,
)


def _shuffled(b, first, second, lanes: list[int]) -> Value:
    """Lanes of two vectors, one after the other, by number."""
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def _joined(b, vectors: list) -> Value:
    """All lanes of several vectors, a power of two of them, as one long vector."""
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        vectors = [_shuffled(b, x, y, list(range(count))) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


@procedure
def _split4(b, x, out0, out1, out2, out3) -> None:
    """LANES numbers each of x[0::4], x[1::4], x[2::4], x[3::4]."""
    numbers = _joined(b, [load(b, offset(b, x, BYTES * i)) for i in range(4)])
    for q, out in enumerate((out0, out1, out2, out3)):
        store(b, _shuffled(b, numbers, numbers, list(range(q, 4 * LANES, 4))), out)


@procedure
def _merge4(b, x0, x1, x2, x3, out, sums, squares) -> None:
    """out[0::4] = x0 and so on, LANES numbers each; sums += out, squares += out^2."""
    numbers = _joined(b, [load(b, x) for x in (x0, x1, x2, x3)])
    for i in range(4):
        value = _shuffled(
            b, numbers, numbers, [q * LANES + i * LANES // 4 + j for j in range(LANES // 4) for q in range(4)]
        )
        d = BYTES * i
        store(b, value, offset(b, out, d))
        store(b, b.fadd(load(b, offset(b, sums, d)), value), offset(b, sums, d))
        store(b, multiply_add(b, value, value, load(b, offset(b, squares, d))), offset(b, squares, d))


def _every_second(b, x, odd: int) -> Value:
    """LANES numbers of x[odd::2]."""
    return _shuffled(b, load(b, x), load(b, offset(b, x, BYTES)), list(range(odd, 2 * LANES, 2)))


@procedure
def _split2(b, x, even, odd) -> None:
    """LANES numbers each of x[0::2] and x[1::2]."""
    store(b, _every_second(b, x, 0), even)
    store(b, _every_second(b, x, 1), odd)


@helper
def _unshuffle_pixel(x, channels, out, sums, y, i) -> None:
    """One pixel of `space_to_depth`; channels beyond the last whole vector one by one."""
    width, stride = x.shape[1], x.shape[2]
    deep = out.shape[2]
    done = channels // LANES * LANES
    if done > 0:
        source = address(x) + (2 * y * width + 2 * i) * stride * 4
        result = address(out) + (y * out.shape[1] + i) * deep * 4
        total = address(sums) + y * 2 * deep * 4
        right, below = stride * 4, width * stride * 4
        for c in range(0, done * 4, BYTES):
            p = source + c
            _merge4(p, p + right, p + below, p + below + right, result + 4 * c, total + 4 * c, total + deep * 4 + 4 * c)
    for c in range(done, channels):
        for q in range(4):
            value = x[2 * y + q // 2, 2 * i + q % 2, c]
            out[y, i, 4 * c + q] = value
            sums[y, 0, 4 * c + q] += value
            sums[y, 1, 4 * c + q] += value * value


@helper
def _space_to_depth_rows(part, first, last, x, channels, out, sums) -> None:
    for y in range(first, last):
        clear(address(sums) + y * 2 * out.shape[2] * 4, 2 * out.shape[2] * 4)
        for i in range(out.shape[1]):
            _unshuffle_pixel(x, channels, out, sums, y, i)


@kernel
def space_to_depth(x, channels, out, sums) -> None:
    """PixelUnshuffle(2) of the first channels: out[y, x, 4 c + 2 dy + dx] = x[2 y + dy, 2 x + dx, c], and sums."""
    split(len(out), _space_to_depth_rows, (x, channels, out, sums))


@helper
def _shuffle_pixel(x, channels, out, first, y, i) -> None:
    """One pixel of `depth_to_space`."""
    width, deep = x.shape[1], x.shape[2]
    stride = out.shape[2]
    quarter = channels // 4
    done = quarter // LANES * LANES
    if done > 0:
        source = address(x) + (y * width + i) * deep * 4
        result = address(out) + ((2 * y * out.shape[1] + 2 * i) * stride + first) * 4
        right, below = stride * 4, out.shape[1] * stride * 4
        for c in range(0, done * 4, BYTES):
            p = result + c
            _split4(source + 4 * c, p, p + right, p + below, p + below + right)
    for c in range(done, quarter):
        for q in range(4):
            out[2 * y + q // 2, 2 * i + q % 2, first + c] = x[y, i, 4 * c + q]


@helper
def _depth_to_space_rows(part, first, last, x, channels, out, start) -> None:
    for y in range(first, last):
        for i in range(x.shape[1]):
            _shuffle_pixel(x, channels, out, start, y, i)


@kernel
def depth_to_space(x, channels, out, first) -> None:
    """PixelShuffle(2) of the first channels: out[2 y + dy, 2 x + dx, first + c] = x[y, x, 4 c + 2 dy + dx]."""
    split(len(x), _depth_to_space_rows, (x, channels, out, first))


@helper
def _exchange_pixel(x1, x2, channels, s1, s2, y, i) -> None:
    """One pixel of `exchange`."""
    width, stride = x1.shape[1], x1.shape[2]
    half = channels // 2
    done = half // LANES * LANES
    if done > 0:
        place = (y * width + i) * stride * 4
        p1, p2 = address(x1) + place, address(x2) + place
        o1, o2 = address(s1) + place, address(s2) + place
        for c in range(0, done * 4, BYTES):
            _split2(p1 + 2 * c, o2 + c, o1 + c)
            _split2(p2 + 2 * c, o1 + half * 4 + c, o2 + half * 4 + c)
    for c in range(done, half):
        s1[y, i, c], s1[y, i, half + c] = x1[y, i, 2 * c + 1], x2[y, i, 2 * c]
        s2[y, i, c], s2[y, i, half + c] = x1[y, i, 2 * c], x2[y, i, 2 * c + 1]


@helper
def _exchange_rows(part, first, last, x1, x2, channels, s1, s2) -> None:
    for y in range(first, last):
        for i in range(x1.shape[1]):
            _exchange_pixel(x1, x2, channels, s1, s2, y, i)


@kernel
def exchange(x1, x2, channels, s1, s2) -> None:
    """The channel shuffle of two maps: s1 = [x1 odd channels | x2 even ones], s2 = [x1 even ones | x2 odd ones]."""
    split(len(x1), _exchange_rows, (x1, x2, channels, s1, s2))

"""Memory of maps is reused, whole or in parts, and never shared by two maps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bidiffsr_arch.packed.arena import Arena


def memory(arena: Arena) -> int:
    return sum(block.memory.size for block in arena._blocks)


def test_a_map_is_reused_by_the_next_of_its_size():
    arena = Arena()
    first = arena.allocate((4, 4, 16))
    arena.release(first)
    again = arena.allocate((2, 2, 64))
    assert again.shape == (2, 2, 64) and again.ctypes.data == first.ctypes.data
    with arena.maps((2, 2, 16), (2, 2, 16)) as (a, b):
        assert a.ctypes.data != b.ctypes.data


def test_a_large_maps_memory_serves_small_ones_and_then_a_large_one_again():
    arena = Arena()
    arena.release(arena.allocate((4, 4, 16)))
    with arena.maps((2, 4, 16), (2, 2, 16), (2, 2, 16)):
        assert memory(arena) == 4 * 4 * 16
    arena.allocate((4, 4, 16))
    assert memory(arena) == 4 * 4 * 16


def test_unused_small_memory_is_replaced_for_a_large_map():
    arena = Arena()
    with arena.maps((2, 2, 16), (2, 2, 16)):
        assert memory(arena) == 2 * 2 * 2 * 16
    with arena.maps((4, 4, 16)):
        assert memory(arena) == 4 * 4 * 16
        with arena.maps((2, 2, 16)):
            assert memory(arena) == 4 * 4 * 16 + 2 * 2 * 16


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans(), st.integers(0, 9)), max_size=40))
def test_maps_never_share_a_float(actions):
    arena = Arena()
    for _ in range(2):
        arena.begin((8, 8))
        live = []
        for size, releases, which in actions:
            if releases and live:
                array, number = live.pop(which % len(live))
                assert (array == number).all()
                arena.release(array)
            else:
                array = arena.allocate((1, size, 16))
                assert array.ctypes.data % 64 == 0
                array.fill(size + 1000 * len(live))
                live.append((array, size + 1000 * len(live)))
        for array, number in live:
            assert (array == number).all()
    assert np.isfinite([block.memory.sum() for block in arena._blocks]).all()


def test_memory_of_an_interrupted_image_is_free_for_the_next():
    arena = Arena()
    arena.begin((8, 8))
    arena.allocate((8, 8, 16))
    arena.begin((8, 8))
    arena.allocate((8, 8, 16))
    assert memory(arena) == 8 * 8 * 16


def test_padding_channels_of_used_memory_are_zeros():
    arena = Arena()
    first = arena.allocate((2, 3, 16))
    first.fill(np.nan)
    arena.release(first)
    again = arena.allocate((2, 3, 10))
    assert again.shape == (2, 3, 16) and not again[..., 10:].any()


def test_another_image_size_starts_with_new_memory():
    arena = Arena()
    arena.begin((8, 8))
    arena.release(arena.allocate((8, 8, 16)))
    arena.begin((8, 16))
    assert memory(arena) == 0

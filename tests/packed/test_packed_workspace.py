"""Maps are used again, whole or in parts, never two at the same place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bidiffsr_arch.packed.workspace import Workspace


def memory(room: Workspace) -> int:
    return sum(block.memory.size for block in room._blocks)


def test_a_map_is_used_again_by_the_next_of_its_size():
    room = Workspace()
    first = room.take((4, 4, 16))
    room.give(first)
    again = room.take((2, 2, 64))
    assert again.shape == (2, 2, 64) and again.ctypes.data == first.ctypes.data
    with room.maps((2, 2, 16), (2, 2, 16)) as (a, b):
        assert a.ctypes.data != b.ctypes.data


def test_a_large_maps_memory_serves_small_ones_and_then_a_large_one_again():
    room = Workspace()
    room.give(room.take((4, 4, 16)))
    with room.maps((2, 4, 16), (2, 2, 16), (2, 2, 16)):
        assert memory(room) == 4 * 4 * 16
    room.take((4, 4, 16))
    assert memory(room) == 4 * 4 * 16


def test_small_memory_that_nobody_uses_makes_room_for_a_large_map():
    room = Workspace()
    with room.maps((2, 2, 16), (2, 2, 16)):
        assert memory(room) == 2 * 2 * 2 * 16
    with room.maps((4, 4, 16)):
        assert memory(room) == 4 * 4 * 16
        with room.maps((2, 2, 16)):
            assert memory(room) == 4 * 4 * 16 + 2 * 2 * 16


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.integers(0, 9)), max_size=40))
def test_maps_never_share_a_float(actions):
    room = Workspace()
    for _ in range(2):
        room.begin((8, 8))
        held = []
        for size, gives_back, which in actions:
            if gives_back and held:
                array, number = held.pop(which % len(held))
                assert (array == number).all()
                room.give(array)
            else:
                array = room.take((size,))
                assert array.ctypes.data % 64 == 0
                array.fill(size + 1000 * len(held))
                held.append((array, size + 1000 * len(held)))
        for array, number in held:
            assert (array == number).all()
    assert np.isfinite([block.memory.sum() for block in room._blocks]).all()


def test_what_a_stopped_picture_held_is_free_for_the_next():
    room = Workspace()
    room.begin((8, 8))
    room.take((8, 8, 16))
    room.begin((8, 8))
    room.take((8, 8, 16))
    assert memory(room) == 8 * 8 * 16


def test_another_picture_size_starts_anew():
    room = Workspace()
    room.begin((8, 8))
    room.give(room.take((8, 8, 16)))
    room.begin((8, 16))
    assert memory(room) == 0

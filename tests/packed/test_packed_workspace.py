"""Maps are used again, and do not pile up."""

from bidiffsr_arch.packed import workspace
from bidiffsr_arch.packed.workspace import Workspace


def test_a_map_is_used_again_by_the_next_of_its_size():
    room = Workspace()
    first = room.take((4, 4, 16))
    assert room.take((4, 4, 16)) is not first
    room.give(first)
    again = room.take((2, 2, 64))
    assert again.shape == (2, 2, 64) and again.ctypes.data == first.ctypes.data
    with room.maps((2, 2, 16), (2, 2, 16)) as (a, b):
        assert a.ctypes.data != b.ctypes.data


def test_unused_maps_of_other_sizes_are_given_up(monkeypatch):
    monkeypatch.setattr(workspace, "SPARE", 1000)
    room = Workspace()
    large = room.take((4, 4, 16))
    room.give(large)
    assert room.take((4, 4, 16)).ctypes.data == large.ctypes.data
    room.give(large)
    room.take((4, 4, 32))
    assert not any(room._free.values())


def test_another_picture_size_starts_anew():
    room = Workspace()
    room.begin((8, 8))
    room.give(room.take((8, 8, 16)))
    room.begin((8, 8))
    assert any(room._free.values())
    room.begin((8, 16))
    assert not any(room._free.values())

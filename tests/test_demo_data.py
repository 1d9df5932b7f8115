"""The demo's photographs: written once, never downloaded, never lost."""

import socket

import numpy as np
import pytest

from bidiffsr_arch.data.demo import PHOTOGRAPHS, write_demo
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.data.strip import strip
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_image


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo(root)
    return root


def test_layout_and_sizes(demo):
    for split, names in PHOTOGRAPHS.items():
        for stem in (name.split(".")[0] for name in names):
            original = read_image(demo / split / "HR" / f"{stem}.png")
            assert original.shape[0] % 24 == original.shape[1] % 24 == 0
            for scale in (2, 4):
                small = read_image(demo / split / "LR_bicubic" / f"X{scale}" / f"{stem}x{scale}.png")
                np.testing.assert_array_equal(small, imresize(original, 1 / scale))
    assert sum(path.is_file() for path in demo.rglob("*")) == 3 * sum(map(len, PHOTOGRAPHS.values()))


def test_second_run_writes_nothing(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert write_demo(demo) == []
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_missing_file_is_written_again(demo):
    path = demo / "val" / "LR_bicubic" / "X4" / "chelseax4.png"
    path.unlink()
    assert write_demo(demo) == [path]


@pytest.mark.parametrize("content", [b"", b"mine"], ids=["empty", "other"])
def test_another_file_is_kept_unless_overwrite_is_set(tmp_path, content):
    mine = tmp_path / "val" / "HR" / "chelsea.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(content)
    with pytest.raises(InputError, match=r"HR/chelsea\.png.*--overwrite"):
        write_demo(tmp_path, scales=[2])
    assert mine.read_bytes() == content
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine in write_demo(tmp_path, scales=[2], overwrite=True)
    assert read_image(mine).shape == (288, 432, 3)


def test_needs_no_connection(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_demo(tmp_path, scales=[4])


def test_scikit_image_without_its_images_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("bidiffsr_arch.data.demo.files", lambda _: tmp_path / "skimage")
    with pytest.raises(InputError, match=r"astronaut\.png.*no such file"):
        write_demo(tmp_path / "demo")


@pytest.mark.parametrize("scales", [[], [1], [5], [2, 7]])
def test_impossible_scales_are_refused(tmp_path, scales):
    with pytest.raises(InputError, match="expected scales among 2, 3, 4"):
        write_demo(tmp_path, scales)


def test_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, np.zeros((2, 2, 3), np.uint8))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_image(path, np.ones((2, 2, 3), np.uint8))
    assert [other.name for other in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


def test_strip_shows_every_image_in_its_column():
    low = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)  # 1 x 2
    wide, narrow = np.full((60, 120, 3), 50, np.uint8), np.full((40, 80, 3), 90, np.uint8)
    table = strip([{"LR": low, "HR": wide}, {"LR": low, "HR": narrow}])
    assert table.shape == (24 + 60 + 24 + 40, 120 + 4 + 120, 3)
    first_lr, first_hr = table[24:84, :120], table[24:84, 124:]
    assert np.all(first_lr[:, :60] == [255, 0, 0])
    assert np.all(first_lr[:, 60:] == [0, 255, 0])
    assert np.all(first_hr == 50)
    assert np.all(table[108:, 124:204] == 90)
    assert np.all(table[108:, 204:] == 255)
    assert np.any(table[:24, :40] < 128), "no label was drawn"


def test_strip_refuses_ragged_rows():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="expected"):
        strip([])
    with pytest.raises(ValueError, match="zip"):
        strip([{"LR": image, "HR": image}, {"LR": image}])

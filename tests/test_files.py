"""The atomic writer of files, with several processes, all kinds of names, and full disks."""

import errno
import io
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import UNFINISHED, decode, digest, is_truncated, read_image, whole_file, write_bytes
from bidiffsr_arch.training.checkpoint_file import remove_abandoned, save_checkpoint


def test_concurrent_writers_of_one_file_do_not_interfere(tmp_path):
    """Each has a temporary file of its own, and the last rename wins."""
    path = tmp_path / "file"
    with whole_file(path) as first:
        first.write(b"first")
        with whole_file(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second" and len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"first" and len(list(tmp_path.iterdir())) == 1


def test_many_writers_leave_one_whole_file(tmp_path):
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(tmp_path / "file", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "." + "b" * 254])
def test_the_longest_names_can_be_written(tmp_path, name):
    write_bytes(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment, error):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, fail)
        with pytest.raises(type(error)):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_files_have_the_permissions_of_the_umask(tmp_path):
    (tmp_path / "any").touch()
    write_bytes(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "set path: experiments_root to a folder that can be written"),
        (errno.EROFS, "set path: experiments_root to a folder that can be written"),
        (errno.EIO, "set path: experiments_root to a folder that can be written"),
    ],
)
def test_the_message_for_a_full_disk_has_advice(tmp_path, monkeypatch, number, advice):
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    line = rf"net\.pth cannot be written \({os.strerror(number)}\); .*: {advice}, and resume"
    with pytest.raises(InputError, match=line):
        save_checkpoint({"a": torch.zeros(3)}, tmp_path / "net.pth")


def test_other_errors_than_those_of_the_disk_are_not_changed(tmp_path):
    class Unsavable:
        def __reduce__(self):
            raise RuntimeError("cannot be pickled")

    with pytest.raises(RuntimeError, match="cannot be pickled"):
        save_checkpoint({"a": Unsavable()}, tmp_path / "net.pth")
    assert os.listdir(tmp_path) == []


def test_abandoned_files_are_removed_and_those_of_a_running_process_are_not(tmp_path):
    old, new = (tmp_path / f"{UNFINISHED}{name}" for name in ("old", "new"))
    for file in (old, new, tmp_path / "net.pth"):
        file.write_bytes(b"half")
        os.utime(file, (0, 0))
    os.utime(new)
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "net.pth"}


def test_digest_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_end_of_an_exif_thumbnail_is_not_that_of_a_jpeg(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    thumbnail = io.BytesIO()
    image.resize((8, 8)).save(thumbnail, "JPEG")
    content = io.BytesIO()
    image.save(content, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail.getvalue())
    whole = content.getvalue()
    assert whole.count(b"\xff\xd9") == 2 and not is_truncated(whole) and not is_truncated(whole + b"behind the image")
    for length in range(len(whole) - 1):
        assert is_truncated(whole[:length]) == (length > 2)
    with pytest.raises(InputError, match=r"a\.jpg cannot be decoded: \d+ bytes"):
        decode(whole[:-200], "a.jpg")


def test_images_are_read_whole_or_refused_by_name(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    content = cv2.imencode(".png", image)[1].tobytes()
    assert np.array_equal(decode(content, "a.png"), image)
    (tmp_path / "a.png").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    for damaged in (content[:-20], b"", b"text"):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.png cannot be decoded: \d+ bytes"):
            read_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="found no such file"):
        read_image(Path("nowhere.png"))

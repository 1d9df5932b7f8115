"""Many images: an error in one of them, or in its folder, does not stop the others."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from bidiffsr_arch.cli import main
from bidiffsr_arch.data.folders import scan
from bidiffsr_arch.errors import InputError, printable
from bidiffsr_arch.upscale import batch
from bidiffsr_arch.upscale.formats import FORMATS, check_size
from bidiffsr_arch.upscale.photo import write_photo
from bidiffsr_arch.upscale.plan import plan

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch, bicubic_upscaler) -> Path:
    """in/ with the images a.png and z.png, in the current directory; upscaling is by bicubic interpolation."""
    from bidiffsr_arch.upscale.upscaler import Upscaler

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Upscaler, "from_file", lambda *args, **settings: bicubic_upscaler)
    for name in ("a.png", "z.png"):
        save(Path("in", name))
    return Path("in")


def save(path: Path, pixels: np.ndarray = PIXELS, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "-o", "out"])


def results(folder: str = "out") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def signed(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, PIXELS[..., 0].astype(np.int16))


def frames(path: Path) -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    first.save(path, save_all=True, append_images=[second])


def half(path: Path) -> None:
    save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def with_alpha(path: Path) -> None:
    """Transparency where the name's format has none."""
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]])).save(path, "PNG")


def too_wide(suffix: str):
    """An image whose result at x2 is one pixel wider than its format allows."""

    def write(path: Path) -> None:
        width = FORMATS[suffix].longest_side // 2 + 1
        Image.new("L", (width, 1)).save(path, "PNG")  # the content tells what it is, the name what is written

    return write


BAD = {
    "empty.png": lambda path: path.write_bytes(b""),
    "text.png": lambda path: path.write_text("no image"),
    "zeros.jpg": lambda path: path.write_bytes(bytes(500)),
    "moving.png": frames,
    "moving.webp": frames,
    "pages.tif": frames,
    "half.png": half,
    "half.jpg": half,
    "half.bmp": half,
    "half.tif": half,
    "half.webp": half,
    "i16.tif": signed,
    "float.tif": lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path),
    "alpha.jpg": with_alpha,
    "wide.webp": too_wide(".webp"),
    "wide.jpg": too_wide(".jpg"),
    "bomb.png": lambda path: path.write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x10\0\0\0\x10\0\0\x08\x02\0\0\0" + bytes(4)
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("as_file", [False, True], ids=["in a folder", "as an argument"])
def test_a_bad_image_is_named_and_the_others_are_upscaled(folder, capsys, name, as_file):
    BAD[name](folder / name)
    inputs = [f"in/{each}" for each in ("a.png", name, "z.png")] if as_file else ["in"]
    assert upscale(*inputs) == 2
    assert results() == ["a.png", "z.png"]
    line = last_line(capsys)
    assert line.startswith("basicsr: ") and name in line


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_all_bad_images_are_named(folder, capsys):
    for name, write in BAD.items():
        write(folder / name)
    assert upscale("in") == 2
    assert results() == ["a.png", "z.png"]
    said = capsys.readouterr()
    named = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert len(named) == len(BAD) and all(sum(name in line for line in named) == 1 for name in BAD)
    assert f"(and {len(BAD) - 1} more)" in said.err and "2 images upscaled" in said.out


@pytest.mark.parametrize("error", [
    InputError("too little memory"), RuntimeError("device lost\nand more"), MemoryError(), ValueError("odd"),
    OSError(errno.EIO, "Input/output error"), ZeroDivisionError(),
], ids=lambda error: type(error).__name__)  # fmt: skip
@pytest.mark.parametrize("place", ["read_photo", "check_writable", "write_photo"])
def test_any_error_in_one_image_names_it(folder, monkeypatch, capsys, place, error):
    done = getattr(batch, place)
    save(folder / "m.png")

    def fail_once(path, *args):
        if path.name == "m.png":
            raise error
        return done(path, *args)

    monkeypatch.setattr(batch, place, fail_once)
    assert upscale("in") == 2
    assert results() == ["a.png", "z.png"]
    line = last_line(capsys)
    assert line.startswith("basicsr: ") and "m.png" in line and "more)" not in line


def test_a_sampler_that_diverges_names_its_image(folder, monkeypatch, capsys, bicubic_upscaler):
    sample, calls = bicubic_upscaler.sample, []

    def diverge(image):
        calls.append(1)
        return sample(image) if len(calls) > 1 else sample(image) * float("nan")

    monkeypatch.setattr(bicubic_upscaler, "sample", diverge)
    assert upscale("in") == 2
    assert results() == ["z.png"]
    assert "a.png: expected a finite result, got NaN" in last_line(capsys)


def test_the_longest_possible_name_is_written(folder):
    name = "x" * 251 + ".png"
    save(folder / name)
    assert upscale("in") == 0
    assert results() == ["a.png", name, "z.png"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_limits_of_formats_are_those_of_their_encoders_and_decoders(tmp_path, suffix):
    """One row of as many pixels as fit, and one more."""
    from bidiffsr_arch.upscale.photo import Photo

    limit, path = FORMATS[suffix].longest_side, tmp_path / f"a{suffix}"
    check_size(path, 1, limit)
    with pytest.raises(InputError, match=f"at most {limit} pixels"):
        check_size(path, limit + 1, 1)
    if limit > 2**20:
        return  # the memory of this machine comes first
    write_photo(path, Photo(np.zeros((1, limit), np.uint8)))
    with Image.open(path) as image:
        assert image.size == (limit, 1)
    with pytest.raises(Exception):  # noqa: B017 (whatever its encoder raises, or its decoder)
        Image.new("L", (limit + 1, 1)).save(tmp_path / f"b{suffix}", FORMATS[suffix].name)
        Image.open(tmp_path / f"b{suffix}")


# folders


STRAYS = {
    "hidden": ["._a.png", ".DS_Store", ".hidden.jpg", ".thumbnails/b.png", "__MACOSX/._a.png"],
    "others": ["Thumbs.db", "desktop.ini", "b.heic", "c.HEIC", "notes.txt", "README", "movie.mp4", "d.gif"],
}


@pytest.mark.parametrize("recursive", [False, True])
def test_other_files_are_skipped_and_counted(folder, capsys, recursive):
    for name in STRAYS["hidden"] + STRAYS["others"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"whatever")
    assert upscale("in", *["--recursive"] * recursive) == 0
    assert results() == ["a.png", "z.png"]
    said = capsys.readouterr().out
    counts = ["2 .heic", "1 .db", "1 .ini", "1 .txt", "1 without suffix", "1 .mp4", "1 .gif"]
    assert "left out: " in said and all(count in said for count in counts)
    assert ("1 folder" in said) == (not recursive)  # __MACOSX, where it is not entered
    assert ".png" not in said.split("left out: ")[1]


def test_the_message_for_a_folder_without_images_lists_its_contents(folder, capsys):
    Path("other").mkdir()
    for name in ("a.heic", "b.heic", ".c.png"):
        Path("other", name).write_bytes(b"")
    assert upscale("other") == 2
    assert "found none, but 2 .heic" in last_line(capsys)


@pytest.mark.parametrize("suffix", [".jfif", ".JFIF", ".JPG", ".jpeg"])
def test_jfif_is_jpeg(folder, suffix):
    save(folder / f"b{suffix}", format="JPEG")
    assert upscale("in") == 0
    with Image.open(f"out/b{suffix}") as image:
        assert image.format == "JPEG" and image.size == (12, 16)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("channels", [3, 4])
def test_avif_is_read_and_written(folder, channels):
    smooth = np.tile(np.linspace(40, 200, 32)[:, None, None], (1, 32, channels)).astype(np.uint8)
    save(folder / "b.avif", smooth, quality=95)
    assert upscale("in") == 0
    with Image.open("out/b.avif") as image:
        assert image.format == "AVIF" and image.size == (64, 64) and len(image.getbands()) == channels
        middle = np.asarray(image.convert("RGB"))[::2, ::2]
    assert np.abs(middle.astype(int) - smooth[..., :3]).max() <= 8


def test_recursive_keeps_the_tree(folder, capsys):
    for name in ("sub/a.png", "sub/deep/er/b.jpg", "other/z.png"):
        save(folder / name)
    (folder / "loop").symlink_to(folder.resolve())
    assert upscale("in", "--recursive") == 0
    assert results() == ["a.png", "other/z.png", "sub/a.png", "sub/deep/er/b.jpg", "z.png"]
    with Image.open("out/sub/deep/er/b.jpg") as image:
        assert image.size == (12, 16)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    assert upscale("in", "--recursive") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before
    assert "0 images upscaled by 2 in out; 5 existed" in capsys.readouterr().out


def test_results_within_the_folder_are_not_upscaled_again(folder):
    for _ in range(2):
        assert main(["upscale", "in", "-o", "in/out", "--recursive"]) == 0
    assert results("in") == ["a.png", "out/a.png", "out/z.png", "z.png"]


def test_two_trees_with_one_name_are_refused(folder):
    save(Path("more/a.png"))
    with pytest.raises(InputError, match=r"got a\.png twice"):
        plan(["in", "more"], "out")
    save(Path("more/sub/b.png"))
    Path("more/a.png").unlink()
    assert [job.target for job in plan(["in", "more"], "out", recursive=True).jobs] == [
        Path("out/a.png"), Path("out/z.png"), Path("out/sub/b.png")
    ]  # fmt: skip


def test_scan_lists_by_suffix_and_kind(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "a.PNG").write_bytes(b"")
    contents = scan(tmp_path)
    assert [path.name for path in contents.images] == ["a.PNG"]
    assert contents.left_out() == "1 broken link, 1 folder"
    (tmp_path / "link").symlink_to("folder.png")
    assert scan(tmp_path, recursive=True).left_out() == "1 broken link, 1 folder"  # the link, which is not followed


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch, capsys):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "in/closed")

    monkeypatch.setattr("os.scandir", refuse)
    assert upscale("in", "--recursive") == 2
    assert "in/closed" in last_line(capsys) and not results()


def test_what_is_no_file_is_refused_at_once(folder, capsys):
    os.mkfifo("pipe.png")  # reading it would wait for ever
    for name, found in (("pipe.png", "a special file"), ("nowhere.png", "no such file")):
        assert upscale(name) == 2
        assert last_line(capsys) == f"basicsr: expected an image or a folder at {name}, found {found}"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_place_of_a_result_is_named(folder, capsys, overwrite):
    Path("out/a.png").mkdir(parents=True)
    assert upscale("in", *["--overwrite"] * overwrite) == 2
    assert "expected out/a.png to be free for the result of in/a.png, got a folder" in last_line(capsys)
    assert results() == ["z.png"]


NAMES = [
    "a\nb.png", "tab\t.png", "~tilde.png", "~root.png", "emoji \U0001f600.png", "-dash.png", "percent %s%d.png",
    "braces {0}.png", "dots...png", "back\\slash.png", "escape \x1b[31m.png", os.fsdecode(b"not utf-8 \xff.png"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_good", [True, False])
def test_any_name_is_upscaled_or_named_in_one_line(folder, capsys, monkeypatch, name, is_good):
    save(Path("other", "b.png"))
    Path("other", "b.png").rename(Path("other", name))
    if not is_good:
        Path("other", name).write_bytes(b"no image")
    monkeypatch.chdir("other")
    for arguments in (["--", name], ["."]):
        assert main(["upscale", "-o", os.fsdecode(b"out \xff"), "--overwrite", *arguments]) == (0 if is_good else 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "tile" not in line]
    assert all(printable(name) in line and "which is not one" in line for line in lines) and bool(lines) != is_good
    assert results(os.fsdecode(b"out \xff")) == [name] * is_good


def test_homes_of_users_are_found_where_there_are_any(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert main(["upscale", "~/in", "-o", "~/out"]) == 0
    assert results() == ["a.png", "z.png"]
    assert main(["upscale", "in", "-o", "~nobody at all/out"]) == 0
    assert results("~nobody at all/out") == ["a.png", "z.png"]


def test_progress_ends_at_its_total(folder, monkeypatch):
    """The share of a failed image is subtracted from the total."""
    bars = []

    class Bar(batch.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"disable": False})
            bars.append(self)

    monkeypatch.setattr(batch, "tqdm", Bar)
    save(folder / "b.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:80])
    assert upscale("in") == 2
    assert bars[0].n == bars[0].total > 0


def test_messages_are_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(batch, "read_photo", lambda path: 1 / 0)
    assert upscale("in") == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("failed: ") for line in lines) == 2
    assert re.search(r"^basicsr: in/a.png: cannot be upscaled: division by zero \(and 1 more\)$", lines[-1])


def test_warnings_about_dropped_metadata_name_the_image(folder, capsys):
    """On stderr, unless --quiet."""
    import struct
    import zlib

    content = (folder / "a.png").read_bytes()
    data = b"zTXtk\0\0" + zlib.compress(bytes(2**21))
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (folder / "a.png").write_bytes(content[:33] + chunk + content[33:])
    assert upscale("in") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("in/")]
    assert len(lines) == 1 and lines[0].startswith("in/a.png: its PNG chunks zTXt")
    assert upscale("in", "--overwrite", "--quiet") == 0
    assert capsys.readouterr() == ("", "")

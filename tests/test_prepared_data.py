"""Images prepared for fast loading: subimages, and an LMDB that BasicSR reads."""

import io

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bidiffsr_arch.cli import main
from bidiffsr_arch.data.lmdb import write_lmdb
from bidiffsr_arch.data.pairs import PairSettings, quality_of, write_pairs
from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.data.subimages import Cut, write_subimages
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_image

CUT = Cut(scale=2, size=16, step=12)


@pytest.fixture
def pairs(tmp_path):
    """Folders HR and LR with two images, 40x30 and 16x16; LR's pixels are every second one of HR's."""
    generator = np.random.default_rng(0)
    for name, shape in (("a", (30, 40, 3)), ("b", (16, 16, 3))):
        image = generator.integers(0, 256, shape, dtype=np.uint8)
        write_image(tmp_path / "HR" / f"{name}.png", image)
        write_image(tmp_path / "LR" / f"{name}x2.png", image[::2, ::2])
    return tmp_path / "HR", tmp_path / "LR"


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8), st.integers(0, 60))
def test_squares_cover_every_pixel_and_lie_on_lrs_grid(scale, size, step, side):
    cut = Cut(scale, size * scale, step * scale)
    starts = cut.starts(side * scale)
    assert all(start % scale == 0 and 0 <= start <= side * scale - cut.size for start in starts)
    covered = {pixel for start in starts for pixel in range(start, start + cut.size)}
    if step <= size:
        assert len(covered) == (side * scale if side >= size else 0)
    assert sorted(set(starts)) == starts


def test_pairs_of_squares_show_the_same(pairs, tmp_path):
    count = write_subimages(*pairs, tmp_path / "out", CUT)
    files = sorted((tmp_path / "out" / "HR").iterdir())
    # 40 pixels: squares at 0, 12, 24; 30 pixels: at 0, 12, 14
    assert count == len(files) == 3 * 3 + 1
    original = read_image(pairs[0] / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "HR" / "a_s009.png"), original[14:30, 24:40])
    for file in files:
        small = tmp_path / "out" / "LR_bicubic" / "X2" / f"{file.stem}x2.png"
        np.testing.assert_array_equal(read_image(small), read_image(file)[::2, ::2])


def test_a_second_run_makes_missing_files_only(pairs, tmp_path):
    out = tmp_path / "out"
    write_subimages(*pairs, out, CUT)
    lost = out / "LR_bicubic" / "X2" / "a_s003x2.png"
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert write_subimages(*pairs, out, CUT, workers=2) == 10
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert set(after) - set(before) == {lost} and before.items() <= after.items()


def test_cutting_another_way_into_the_same_folder_is_refused(pairs, tmp_path):
    write_subimages(*pairs, tmp_path / "out", CUT)
    with pytest.raises(InputError, match=r"'step': 12\}.*'step': 8\}; choose another folder"):
        write_subimages(*pairs, tmp_path / "out", Cut(2, 16, 8))


def test_images_without_partner_or_of_another_size_are_named(pairs, tmp_path):
    (pairs[1] / "bx2.png").unlink()
    with pytest.raises(InputError, match="expected bx2 or b in"):
        write_subimages(*pairs, tmp_path / "out", CUT)
    write_image(pairs[1] / "b.png", np.zeros((7, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"b\.png to be 2 times .* got 16x16 and 8x7"):
        write_subimages(*pairs, tmp_path / "out", CUT)


def test_sizes_off_lrs_grid_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="multiples of the scale 4, got 480 and 30"):
        Cut(4, 480, 30)
    with pytest.raises(InputError, match="got none in"):
        write_subimages(tmp_path, tmp_path, tmp_path / "out", CUT)


def test_basicsr_reads_a_pair_of_lmdbs_as_it_reads_the_folders(pairs, tmp_path, capsys):
    command = ["data", "lmdb", str(pairs[0]), "-o", str(tmp_path / "HR.lmdb")]
    assert main(command) == 0 and main(command) == 0  # the second finds all there
    assert "2 images in" in capsys.readouterr().out
    write_lmdb(pairs[1], tmp_path / "LR.lmdb", "x2")
    assert not list(tmp_path.glob("*.part"))
    common = dict(name="x", type="PairedImageDataset", phase="val", scale=2)
    packed = build_dataset(
        common
        | dict(
            dataroot_gt=str(tmp_path / "HR.lmdb"), dataroot_lq=str(tmp_path / "LR.lmdb"), io_backend=dict(type="lmdb")
        )
    )
    plain = build_dataset(
        common
        | dict(dataroot_gt=str(pairs[0]), dataroot_lq=str(pairs[1]), filename_tmpl="{}x2", io_backend=dict(type="disk"))
    )
    assert len(packed) == len(plain) == 2
    for a, b in zip(packed, plain, strict=True):
        assert torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"])


def test_an_interrupted_lmdb_is_continued(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("bidiffsr_arch.data.lmdb.AT_ONCE", 1)
    broken = pairs[0] / "b.png"
    content = broken.read_bytes()
    broken.write_bytes(b"half")
    with pytest.raises(InputError, match=r"b\.png"):
        write_lmdb(pairs[0], tmp_path / "HR.lmdb")
    part = tmp_path / "HR.lmdb.part"
    assert (part / "meta_info.txt").read_text() == "a.png (30,40,3) 1\n" and not (tmp_path / "HR.lmdb").exists()
    broken.write_bytes(content)
    with (part / "meta_info.txt").open("a") as file:
        file.write("b.png (16")  # cut off in the middle of a line
    assert write_lmdb(pairs[0], tmp_path / "HR.lmdb") == 2
    lines = (tmp_path / "HR.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines == ["a.png (30,40,3) 1", "b.png (16,16,3) 1"]


def test_lmdbs_of_other_images_and_impossible_names_are_refused(pairs, tmp_path):
    write_lmdb(pairs[0], tmp_path / "x.lmdb")
    with pytest.raises(InputError, match="got others; choose another name"):
        write_lmdb(pairs[1], tmp_path / "x.lmdb")
    with pytest.raises(InputError, match=r"ends in \.lmdb"):
        write_lmdb(pairs[0], tmp_path / "x")
    with pytest.raises(InputError, match="every name to end in 'x4'"):
        write_lmdb(pairs[0], tmp_path / "y.lmdb", "x4")
    (pairs[0] / "a.png").rename(pairs[0] / "a.b.png")
    with pytest.raises(InputError, match="without dots and spaces"):
        write_lmdb(pairs[0], tmp_path / "y.lmdb")


def test_command_cuts(pairs, tmp_path, capsys):
    command = ["data", "subimages", "--hr", str(pairs[0]), "--lr", str(pairs[1]), "--scale", "2"]
    command += ["--size", "16", "--step", "12", "--workers", "1", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert "10 pairs of subimages in" in capsys.readouterr().out
    assert main([*command, "--workers", "0"]) == 2


@pytest.fixture
def photographs(tmp_path):
    """A folder with a photograph of 27x22 pixels, and one beside it of 33x40."""
    generator = np.random.default_rng(0)
    for path, shape in ((tmp_path / "photos" / "a.png", (22, 27, 3)), (tmp_path / "b.png", (40, 33, 3))):
        write_image(path, generator.integers(0, 256, shape, dtype=np.uint8))
    return [tmp_path / "photos", tmp_path / "b.png"]


@pytest.mark.parametrize("reduce", [1, 2])
def test_photographs_become_pairs(photographs, tmp_path, reduce):
    out = tmp_path / "out"
    assert write_pairs(photographs, out, PairSettings([2, 4], reduce)) == 2
    original = read_image(tmp_path / "b.png")
    reduced = original if reduce == 1 else imresize(original[:, :32], 1 / 2)
    high = read_image(out / "HR" / "b.png")
    np.testing.assert_array_equal(high, reduced[:, : high.shape[1]])
    assert high.shape == (40 // reduce // 4 * 4, 33 // reduce // 4 * 4, 3)
    for scale in (2, 4):
        low = read_image(out / "LR_bicubic" / f"X{scale}" / f"bx{scale}.png")
        np.testing.assert_array_equal(low, imresize(high, 1 / scale))


def test_low_resolution_through_jpeg(photographs, tmp_path):
    """Quality is drawn for each image by its name, so that a second run makes the same; HR has no JPEG in it."""
    out = tmp_path / "out"
    write_pairs(photographs, out, PairSettings([2]))
    high = (out / "HR" / "b.png").read_bytes()
    assert write_pairs(photographs, out, PairSettings([2], jpeg=(40, 60))) == 2
    assert (out / "HR" / "b.png").read_bytes() == high
    low = Image.fromarray(read_image(out / "LR_bicubic" / "X2" / "bx2.png")[..., ::-1])
    content = io.BytesIO()
    low.save(content, "JPEG", quality=quality_of("bx2.png", 40, 60), subsampling="4:2:0")
    expected = np.asarray(Image.open(content))[..., ::-1]
    made = out / "LR_jpeg" / "X2" / "bx2.png"
    np.testing.assert_allclose(read_image(made).astype(int), expected.astype(int), atol=3)  # decoders round
    before = made.stat().st_mtime_ns
    write_pairs(photographs, out, PairSettings([2], jpeg=(40, 60)))
    assert made.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="move it away"):
        write_pairs(photographs, out, PairSettings([2], jpeg=(5, 6)))


def test_qualities_lie_between_the_two_and_differ():
    drawn = {quality_of(f"{index}.png", 60, 69) for index in range(200)}
    assert drawn == set(range(60, 70))


def test_existing_pairs_are_kept_and_missing_ones_made(photographs, tmp_path):
    out = tmp_path / "out"
    write_pairs(photographs, out, PairSettings([2]))
    lost = out / "LR_bicubic" / "X2" / "ax2.png"
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("b*.png")}
    assert write_pairs(photographs, out, PairSettings([2]), workers=2) == 2
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("b*.png")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": [1]}, "scales of 2 or more"),
        ({"scales": [64]}, "at least 64 x 64"),
        ({"reduce": 0}, "reduce of 1 or more"),
        ({"reduce": 2}, "move it away"),
        ({"jpeg": (80, 70)}, "the lower one first, got \\[80, 70\\]"),
        ({"jpeg": (0, 70)}, "qualities from 1 to 100"),
        ({"sources": ["b.png", "b.png"]}, "1 names twice"),
        ({"sources": ["c.png"]}, "expected an image at"),
    ],
)
def test_impossible_pairs_are_refused_before_anything_is_written(photographs, tmp_path, change, message):
    out = tmp_path / "out"
    write_pairs(photographs, out, PairSettings([2]))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    sources = [tmp_path / name for name in change.pop("sources", [])] or photographs
    with pytest.raises(InputError, match=message):
        write_pairs(sources, out, PairSettings(**{"scales": [2], **change}))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before


def test_the_command_makes_pairs(photographs, tmp_path, capsys):
    arguments = ["data", "pairs", *map(str, photographs), "--scale", "2", "-o", str(tmp_path / "out")]
    assert main(arguments) in (None, 0)
    assert "2 pairs of images" in capsys.readouterr().out
    assert main([*arguments, "--workers", "0"]) == 2


# other files in folders

STRAYS = ["._a.png", ".DS_Store", "Thumbs.db", "b.heic", "c.heic", "notes.txt", ".hidden/d.png"]
LEFT_OUT = "2 .heic, 1 .db, 1 .txt"


def with_strays(folder):
    for name in STRAYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"whatever")


def test_other_files_are_skipped_and_counted(pairs, photographs, tmp_path, capsys):
    for folder in (*pairs, photographs[0]):
        with_strays(folder)
    hr, lr, out = *map(str, pairs), str(tmp_path / "out")
    commands = {
        "pairs": [str(photographs[0]), "--scale", "2", "--workers", "1", "-o", out],
        "subimages": ["--hr", hr, "--lr", lr, "--scale", "2", "--size", "16", "--step", "12", "--workers", "1"],
        "lmdb": [hr, "-o", str(tmp_path / "HR.lmdb")],
    }
    commands["subimages"] += ["-o", out]
    for action, arguments in commands.items():
        assert main(["data", action, *arguments]) == 0
        said = capsys.readouterr().err
        assert all(count in said for count in LEFT_OUT.split(", ")) and "left out of" in said


@pytest.mark.parametrize("suffix", [".jfif", ".avif", ".webp", ".bmp", ".tif"])
def test_every_kind_of_image_becomes_a_pair(tmp_path, suffix):
    smooth = np.tile(np.linspace(30, 200, 16)[:, None, None], (1, 16, 3)).astype(np.uint8)
    kind = {".jfif": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
    (tmp_path / "in").mkdir()
    Image.fromarray(smooth).save(tmp_path / "in" / f"a{suffix}", kind, quality=95)
    assert write_pairs([tmp_path / "in"], tmp_path / "out", PairSettings([2])) == 1
    written = read_image(tmp_path / "out" / "HR" / "a.png").astype(int)
    assert np.abs(written - smooth[..., ::-1]).max() <= 4


BAD = {
    "empty.png": b"", "text.png": b"no image", "half.png": None, "zeros.jpg": bytes(400),
    "small.png": np.zeros((1, 1, 3), np.uint8),
}  # fmt: skip


def write_bad(folder):
    for name, content in BAD.items():
        if isinstance(content, np.ndarray):
            write_image(folder / name, content)
        else:
            half = (folder / "a.png").read_bytes()[:200]
            (folder / name).write_bytes(half if content is None else content)


def test_bad_photographs_are_named_and_the_others_become_pairs(photographs, tmp_path, capsys):
    write_bad(photographs[0])
    arguments = ["data", "pairs", *map(str, photographs), "--scale", "2", "--workers", "2", "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in BAD) and said.strip().endswith(f"(and {len(BAD) - 1} more)")
    assert sorted(path.name for path in (tmp_path / "out" / "HR").iterdir()) == ["a.png", "b.png"]


def test_bad_pairs_are_named_and_the_others_are_cut(pairs, tmp_path, capsys):
    whole = (pairs[0] / "a.png").read_bytes()
    for name in ("c", "d"):
        (pairs[0] / f"{name}.png").write_bytes(whole[:100])
        (pairs[1] / f"{name}x2.png").write_bytes((pairs[1] / "ax2.png").read_bytes())
    with pytest.raises(InputError, match=r"\(and 1 more\)"):
        write_subimages(*pairs, tmp_path / "out", CUT)
    assert "c.png" in (said := capsys.readouterr().err) and "d.png" in said
    assert len(list((tmp_path / "out" / "HR").iterdir())) == 10


def test_bad_images_are_named_and_the_others_are_packed(pairs, tmp_path, capsys):
    whole = (pairs[0] / "a.png").read_bytes()
    (pairs[0] / "ab.png").write_bytes(whole[:100])
    (pairs[0] / "ac.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"\(and 1 more\)"):
        write_lmdb(pairs[0], tmp_path / "HR.lmdb")
    said = capsys.readouterr().err
    assert "ab.png" in said and "ac.png" in said and not (tmp_path / "HR.lmdb").exists()
    assert len((tmp_path / "HR.lmdb.part" / "meta_info.txt").read_text().splitlines()) == 2
    (pairs[0] / "ab.png").unlink()
    (pairs[0] / "ac.png").write_bytes(whole)
    assert write_lmdb(pairs[0], tmp_path / "HR.lmdb") == 3

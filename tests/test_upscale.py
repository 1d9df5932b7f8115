"""Upscaler from Python, and `basicsr upscale`: whole runs with a tiny network."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import bidiffsr_arch
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.errors import InputError

WEIGHTS = "experiments/tiny/models/net_g_latest.pth"


@pytest.fixture
def options(tiny_options: dict[str, Any]) -> dict[str, Any]:
    return dict(
        name="tiny",
        model_type="BIDiffSRModel",
        scale=2,
        num_gpu=0,
        diffuse="residual",
        residual_scale=4.0,
        network_g=dict(type="BIDiffSRUNet", **tiny_options),
        beta_schedule=dict(n_timestep=100, num_inference_steps=3),
        datasets=dict(test_1=dict(name="images", type="SingleImageDataset", dataroot_lq="in")),
        path=dict(pretrain_network_g=None),
        val=dict(suffix=None),
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, tiny_options) -> Path:
    """A current directory with an experiment of training, and images in in/."""
    monkeypatch.chdir(tmp_path)
    Path(WEIGHTS).parent.mkdir(parents=True)
    Path("in").mkdir()
    write_experiment(options, tiny_options)
    rng = np.random.default_rng(0)
    for name, shape in {"a.png": (9, 12, 3), "b.jpg": (10, 7, 3), "c.png": (8, 8)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(Path("in", name))
    return tmp_path


def write_experiment(options: dict[str, Any], tiny_options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network, average = BIDiffSRUNet(**tiny_options), BIDiffSRUNet(**tiny_options)
    torch.save({"params": network.state_dict(), "params_ema": average.state_dict()}, WEIGHTS)
    Path("experiments/tiny/train_tiny.yml").write_text(yaml.safe_dump(options))


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments])


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# Python


def test_the_names_are_exported_and_imported_lazily():
    code = "import sys, bidiffsr_arch; assert 'bidiffsr_arch.upscale' not in sys.modules; bidiffsr_arch.Upscaler"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Upscale'"):
        _ = bidiffsr_arch.Upscale


def test_arrays_of_every_layout_and_pillow_images(workplace):
    upscaler = bidiffsr_arch.Upscaler.from_file(WEIGHTS)
    assert upscaler.scale == 2
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        for channels in ((), (2,), (3,), (4,)):
            image = rng.integers(0, np.iinfo(dtype).max, (6, 5, *channels), dtype)
            result = upscaler(image)
            assert result.shape == (12, 10, *channels) and result.dtype == dtype
            if channels in ((2,), (4,)):
                alpha = torch.tensor(image[..., -1])[None, None].float()
                expected = upsample(alpha, 2)[0, 0].clamp(0, np.iinfo(dtype).max).numpy()
                assert np.abs(result[..., -1] - expected).max() <= 0.51  # rounded
    image = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
    image.info["icc_profile"] = b"profile"
    result = upscaler(image)
    assert result.size == (10, 12) and result.mode == "RGB" and result.info["icc_profile"] == b"profile"
    np.testing.assert_array_equal(np.asarray(result), upscaler(np.asarray(image)))


def test_results_are_those_of_the_model_class(workplace, options):
    """The same seed, sampled by BasicSR's model as validation does: equal to the last bit of 8."""
    from basicsr.models import build_model

    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    options |= dict(is_train=False, manual_seed=5, dist=False, rank=0, world_size=1, num_gpu=0)
    options["path"] = dict(pretrain_network_g=WEIGHTS, strict_load_g=True)
    model = build_model(options)
    model.feed_data({"lq": torch.tensor(image).permute(2, 0, 1)[None] / 255})
    model.test()
    expected = (model.output[0].permute(1, 2, 0) * 255).round().byte().numpy()
    result = bidiffsr_arch.Upscaler.from_file(WEIGHTS, seed=5, tile=None)(image)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_results_depend_on_the_seed_but_not_on_earlier_calls(workplace):
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    make = bidiffsr_arch.Upscaler.from_file
    first = make(WEIGHTS, seed=3)(image)
    again = make(WEIGHTS, seed=3)
    again(image[:9])
    np.testing.assert_array_equal(again(image), first)
    assert (make(WEIGHTS, seed=4)(image) != first).any()


def test_a_plain_residual_network_without_weights_returns_the_upsampled_image(workplace, options, tiny_options):
    """x0 predicted as 0 is no residual: bicubic upsampling, to 8 bits."""
    tiny_options["zero_init"] = True
    options["network_g"]["zero_init"], options["beta_schedule"]["prediction_type"] = True, "sample"
    write_experiment(options, tiny_options)
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    result = bidiffsr_arch.Upscaler.from_file(WEIGHTS, tile=16, overlap=8)(image)
    expected = upsample(torch.tensor(image).permute(2, 0, 1)[None].float(), 2)[0].clamp(0, 255).permute(1, 2, 0)
    assert np.abs(result - expected.numpy()).max() <= 0.51


def test_progress_is_called_as_often_as_announced(workplace):
    for sampler in ("DDIM", "HeunDiscrete"):
        upscaler = bidiffsr_arch.Upscaler.from_file(WEIGHTS, sampler=sampler, steps=3, tile=16, overlap=4)
        seen = []
        upscaler(np.zeros((13, 17, 3), np.uint8), on_tile=lambda seen=seen: seen.append(1))
        assert len(seen) == upscaler.calls(13, 17) > 3


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4), np.uint8), [[1]]]
)
def test_what_is_no_image_is_refused(workplace, image):
    with pytest.raises(InputError, match="expected a"):
        bidiffsr_arch.Upscaler.from_file(WEIGHTS)(image)


@pytest.mark.parametrize("view", [
    lambda image: image[..., ::-1], lambda image: image[::-1, ::-2], lambda image: image[1:-1, 2:],
    lambda image: image.transpose(1, 0, 2), np.asfortranarray,
], ids=["BGR", "turned", "a part", "transposed", "by columns"])  # fmt: skip
@pytest.mark.parametrize("channels", [3, 4])
def test_views_give_the_results_of_copies(bicubic_upscaler, view, channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, channels), np.uint8)
    image.flags.writeable = False
    np.testing.assert_array_equal(bicubic_upscaler(view(image)), bicubic_upscaler(view(image).copy()))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4)])
def test_results_that_are_not_finite_are_refused(bicubic_upscaler, bad, shape):
    """As from diverging samplers; in a file they would be black."""

    def diverge(x_t: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        prediction = torch.zeros_like(x_t)
        prediction[..., 3, 3] = bad
        return prediction

    bicubic_upscaler.network.network = diverge
    with pytest.raises(InputError, match=r"expected .*finite.*NaN"):
        bicubic_upscaler(np.full(shape, 9, np.uint8))


def test_a_pillow_image_with_wrong_types_in_exif_is_upscaled(bicubic_upscaler):
    image = Image.new("RGB", (5, 6))
    image.info["exif"] = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x0b\0\x01\0\0\0\0\0\x80?\0\0\0\0"
    assert bicubic_upscaler(image).size == (10, 12)


# packed networks


def packed_file(tiny_options: dict[str, Any]) -> str:
    arguments = ["pack", WEIGHTS, "-opt", "experiments/tiny/train_tiny.yml", "-o", "tiny.safetensors"]
    assert main(arguments) == 0
    return "tiny.safetensors"


def test_packed_weights_give_the_images_of_float_ones(workplace, tiny_options):
    """Rounding may flip the sign of a value close to 0, so a few pixels may differ slightly."""
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    make, file = bidiffsr_arch.Upscaler.from_file, packed_file(tiny_options)
    expected = make(WEIGHTS, tile=24, overlap=8)(image).astype(int)
    for upscaler in (make(file, tile=24, overlap=8), make(WEIGHTS, packed=True, tile=24, overlap=8)):
        assert (upscaler.scale, upscaler.timesteps) == (2, 3)
        difference = np.abs(upscaler(image) - expected)
        assert np.sqrt((difference**2).mean()) < 1 and (difference > 2).mean() < 0.05


def test_packed_weights_contain_their_options(workplace, tiny_options):
    make, file = bidiffsr_arch.Upscaler.from_file, packed_file(tiny_options)
    with pytest.raises(InputError, match="a packed network contains its options"):
        make(file, "experiments/tiny/train_tiny.yml")
    with pytest.raises(InputError, match="leave --float out"):
        make(file, packed=False)
    Path(file).write_bytes(Path(file).read_bytes()[:-9])
    with pytest.raises(InputError, match=re.escape(file)):
        make(file)


# the command


def test_images_and_folders_get_results_of_their_names(workplace, capsys):
    Path("one.webp").write_bytes(b"")
    Image.new("RGBA", (5, 6), (10, 20, 30, 40)).save("one.webp", lossless=True)
    assert upscale("in", "one.webp", "-o", "out", "--weights", WEIGHTS) == 0
    assert sorted(os.listdir("out")) == ["a.png", "b.jpg", "c.png", "one.webp"]
    assert size("out/a.png") == (24, 18) and size("out/b.jpg") == (14, 20) and size("out/one.webp") == (10, 12)
    with Image.open("out/c.png") as gray, Image.open("out/one.webp") as transparent:
        assert gray.mode == "L" and transparent.mode == "RGBA"
    assert "4 images upscaled by 2 in out" in capsys.readouterr().out


def test_existing_results_are_kept_without_overwrite(workplace, capsys):
    Path("out").mkdir()
    Path("out/a.png").write_text("mine")
    assert upscale("in", "-o", "out", "--weights", WEIGHTS) == 0
    assert Path("out/a.png").read_text() == "mine" and "1 existed and were kept" in capsys.readouterr().out
    before = Path("out/b.jpg").stat().st_mtime_ns
    assert upscale("in", "-o", "out", "--weights", WEIGHTS, "--overwrite", "--quiet") == 0
    assert size("out/a.png") == (24, 18) and Path("out/b.jpg").stat().st_mtime_ns > before
    assert capsys.readouterr().out == ""


def test_ctrl_c_leaves_complete_images_and_the_next_run_continues(workplace, monkeypatch):
    from bidiffsr_arch.upscale.upscaler import Upscaler

    call, count = Upscaler.__call__, [0]

    def interrupted(self, *args, **kwargs):
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Upscaler, "__call__", interrupted)
    assert upscale("in", "-o", "out", "--weights", WEIGHTS) == 130
    assert os.listdir("out") == ["a.png"]
    first = Path("out/a.png").stat().st_mtime_ns
    assert upscale("in", "-o", "out", "--weights", WEIGHTS) == 0
    assert sorted(os.listdir("out")) == ["a.png", "b.jpg", "c.png"]
    assert Path("out/a.png").stat().st_mtime_ns == first and count[0] == 4


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_no_half_image(workplace, monkeypatch, capsys, place):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, place, full)
    assert upscale("in", "-o", "out", "--weights", WEIGHTS) == 2
    assert error_line(capsys) == "cannot write out/a.png: No space left on device (and 2 more)"
    assert os.listdir("out") == []


def test_a_disk_that_is_really_full_keeps_the_whole_images(workplace, small_disk, capsys):
    Image.effect_noise((160, 160), 90).save("in/b.png")  # its result is larger than the disk, that of a.png is not
    assert upscale("in/a.png", "in/b.png", "-o", str(small_disk), "--weights", WEIGHTS, "--steps", "1") == 2
    assert error_line(capsys) == f"cannot write {small_disk}/b.png: No space left on device"
    assert os.listdir(small_disk) == ["a.png"]


def test_quiet_prints_errors_only(workplace, monkeypatch, capsys):
    """Compiled kernels, for one, are announced on stderr."""
    from bidiffsr_arch.upscale.upscaler import Upscaler

    call = Upscaler.__call__

    def talkative(self, *args, **kwargs):
        print("Compiling kernels", file=sys.stderr)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Upscaler, "__call__", talkative)
    Path("in/d.png").write_bytes(Path("in/a.png").read_bytes()[:100])
    assert upscale("in", "-o", "out", "--weights", WEIGHTS, "--quiet") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("basicsr: expected a complete image, got in/d.png")
    assert said.err.count("\n") == 1


def test_damaged_images_are_reported_and_the_others_upscaled(workplace, capsys):
    whole = Path("in/a.png").read_bytes()
    Path("in/a.png").write_bytes(whole[: len(whole) // 2])
    Path("in/d.png").write_bytes(whole[: len(whole) // 2])
    assert upscale("in", "-o", "out", "--weights", WEIGHTS) == 2
    line = error_line(capsys)
    assert "in/a.png, which is damaged" in line and line.endswith("(and 1 more)")
    assert sorted(os.listdir("out")) == ["b.jpg", "c.png"]


def error_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("basicsr: ")


def empty_folder() -> list[str]:
    Path("empty").mkdir()
    return ["empty"]


def same_names() -> list[str]:
    Path("other").mkdir()
    Path("other/a.png").write_bytes(Path("in/a.png").read_bytes())
    return ["in", "other"]


def output_is_a_file() -> list[str]:
    Path("out").write_text("")
    return ["in"]


def other_options(**changes: Any) -> None:
    file = Path("experiments/tiny/train_tiny.yml")
    Path("other.yml").write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


def other_scale() -> list[str]:
    other_options(scale=4)
    return ["in", "-opt", "other.yml"]


def other_network() -> list[str]:
    network = yaml.safe_load(Path("experiments/tiny/train_tiny.yml").read_text())["network_g"]
    other_options(network_g=network | dict(inner_channel=16))
    return ["in", "-opt", "other.yml"]


def two_option_files() -> list[str]:
    Path("experiments/tiny/second.yml").write_text("")
    return ["in"]


def no_option_file() -> list[str]:
    Path("experiments/tiny/train_tiny.yml").unlink()
    return ["in"]


def not_finite() -> list[str]:
    content = torch.load(WEIGHTS)
    content["params_ema"]["downs.0.bias"][0] = torch.nan
    torch.save(content, WEIGHTS)
    return ["in"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png"], "at absent.png, found no such file"),
        (["experiments/tiny/train_tiny.yml"], "expected a name in .png"),
        (empty_folder, "in the folder empty, found none"),
        (same_names, "got a.png twice"),
        (["in", "-o", "in"], "in/a.png would be lost"),
        (output_is_a_file, "that can be written to, got -o out"),
        (["in", "-o", "/proc/out"], "that can be written to, got -o /proc/out"),
        (["in", "--weights", "absent.pth"], "expected weights at absent.pth, found no such file"),
        (["in", "--weights", "in/a.png"], "ending in .pth, .pt, .ckpt or .safetensors, got in/a.png"),
        (["in", "--scale", "4"], "expected weights of x4, got .*trained for x2"),
        (other_scale, "expected weights of x4, as other.yml says"),
        (other_network, "expected weights of the network in other.yml"),
        (two_option_files, "found second.yml, train_tiny.yml; choose one with -opt"),
        (no_option_file, "give them with -opt"),
        (not_finite, "NaN or infinity in .*downs.0.bias"),
        (["in", "--steps", "0"], "1 to 100 steps, at most as many as in training, got 0"),
        (["in", "--steps", "101"], "1 to 100 steps, at most as many as in training, got 101"),
        (["in", "--sampler", "Dim"], "scheduler_type to be one of"),
        (["in", "--seed", "-1"], "a seed of 0 or more, got -1"),
        (["in", "--tile", "8", "--overlap", "6"], "an overlap from 0 to half of the tile"),
        (["in", "--device", "abacus"], "a device that this machine has.*got abacus"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_users_mistake_is_one_line_status_2_and_nothing_written(workplace, arguments, message, capsys):
    arguments = arguments if isinstance(arguments, list) else arguments()
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "out"]
    if "--weights" not in arguments:
        arguments = [*arguments, "--weights", WEIGHTS]
    before = {path for path in Path().rglob("*")}
    assert upscale(*arguments) == 2
    line = error_line(capsys)
    assert re.search(message, line), line
    assert {path for path in Path().rglob("*")} == before


def test_every_option_has_help_with_an_example(capsys):
    with pytest.raises(SystemExit) as done:
        upscale("--help")
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "example: basicsr upscale" in text
    for option in ("--weights", "-opt", "--steps", "--sampler", "--seed", "--tile", "--overlap", "--device", "--float"):
        assert option in text

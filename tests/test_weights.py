"""The weights of the package: small, mostly binary, better than bicubic, and the default of the command."""

import cv2
import numpy as np
import pytest
from PIL import Image

from bidiffsr_arch import Upscaler
from bidiffsr_arch.cli import main
from bidiffsr_arch.config.diffusion import BetaSchedule
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.data.demo import write_demo
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image
from bidiffsr_arch.metrics.cost import count_cost
from bidiffsr_arch.networks import build_network
from bidiffsr_arch.packed import load_packed
from bidiffsr_arch.weights import SHIPPED, shipped_weights  # isort: split

from basicsr.metrics import calculate_psnr  # after bidiffsr_arch, which patches what it imports

MEGABYTE = 10**6
# dB over cv2's bicubic upsampling on the demo's two images; measured were 1.19 and 0.91.
LEAST_GAIN = {2: 1.1, 4: 0.8}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo(root)
    return root / "val"


@pytest.mark.parametrize("scale", SHIPPED)
def test_weights_are_small_and_of_the_network_that_the_option_file_trains(scale):
    assert shipped_weights(scale).stat().st_size <= 3 * MEGABYTE
    _, description = load_packed(shipped_weights(scale))
    options = load_options(shipped_path(f"train_BIDiffSR_small_x{scale}"))
    assert (description.scale, description.network_g) == (scale, options["network_g"])
    assert (description.diffuse, description.residual_scale) == (options["diffuse"], options["residual_scale"])
    assert list(description.data_range) == options["data_range"]
    assert description.beta_schedule == BetaSchedule.read(options["beta_schedule"])


@pytest.mark.parametrize("scale", SHIPPED)
def test_seventy_per_cent_of_the_multiplications_are_binary(scale):
    cost = count_cost(build_network(load_options(shipped_path(f"train_BIDiffSR_small_x{scale}"))["network_g"]))
    norms = sum(module.ops_fp for module in cost.modules if module.kind == "NormSwish")
    # Of the 5 operations that a GroupNorm counts for an element, 2 multiply: the square and the gain.
    multiplications = cost.ops_fp - norms * 3 / 5
    assert norms > 0 and cost.ops_binary / (cost.ops_binary + multiplications) >= 0.7


@pytest.mark.parametrize("scale", SHIPPED)
def test_weights_beat_bicubic_on_images_that_they_were_not_trained_on(scale, photographs):
    upscaler, gains = Upscaler.shipped(scale, seed=10, device="cpu"), []
    for path in sorted((photographs / "HR").iterdir()):
        high = read_image(path)
        low = read_image(photographs / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png")
        bicubic = cv2.resize(low, high.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        result = upscaler(np.ascontiguousarray(low[..., ::-1]))[..., ::-1]
        scores = [calculate_psnr(image, high, crop_border=scale, test_y_channel=True) for image in (result, bicubic)]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) >= LEAST_GAIN[scale]


@pytest.mark.parametrize(("arguments", "side"), [([], 48), (["--scale", "4"], 96)])
def test_the_command_defaults_to_the_shipped_weights_and_prints_them(arguments, side, tmp_path, capsys):
    Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(tmp_path / "gray.png")
    command = ["upscale", str(tmp_path / "gray.png"), "-o", str(tmp_path / "large"), *arguments]
    assert main(command) in (None, 0)
    assert f"BIDiffSR_small_x{side // 24}, which comes with the package" in capsys.readouterr().out
    assert Image.open(tmp_path / "large" / "gray.png").size == (side, side)
    assert main([*command, "--quiet", "--overwrite"]) in (None, 0)
    assert capsys.readouterr().out == ""


def test_another_scale_has_no_weights(tmp_path, capsys):
    with pytest.raises(InputError, match="scale of 2 or 4"):
        Upscaler.shipped(3)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "large"), "--scale", "3"]) == 2
    assert "scale of 2 or 4" in capsys.readouterr().err
    assert not (tmp_path / "large").exists()

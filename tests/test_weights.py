"""The weights of the package: small, mostly binary, better than bicubic, and the default of the command."""

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from bidiffsr_arch import Upscaler
from bidiffsr_arch.cli import main
from bidiffsr_arch.config.diffusion import BetaSchedule
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.qualities import QUALITIES
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.data.demo import write_demo
from bidiffsr_arch.description import from_tensors
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image
from bidiffsr_arch.metrics.cost import count_cost
from bidiffsr_arch.networks import build_network
from bidiffsr_arch.packed import Description, load_packed, pack, save_packed
from bidiffsr_arch.weights import FOLDER, INPUTS, SHIPPED, all_shipped_weights, shipped_weights  # isort: split

from basicsr.metrics import calculate_psnr  # after bidiffsr_arch, which patches what it imports

MEGABYTE = 10**6
# dB over cv2's bicubic upsampling on the demo's two images; measured were 1.19 and 0.91.
LEAST_GAIN = {2: 1.1, 4: 0.8}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo(root)
    return root / "val"


@pytest.mark.parametrize("scale", SHIPPED["clean"])
def test_weights_are_small_and_of_the_network_that_the_option_file_trains(scale):
    assert shipped_weights(scale).stat().st_size <= 3 * MEGABYTE
    _, description = load_packed(shipped_weights(scale))
    options = load_options(shipped_path(f"train_BIDiffSR_small_x{scale}"))
    assert (description.scale, description.network_g) == (scale, options["network_g"])
    assert (description.diffuse, description.residual_scale) == (options["diffuse"], options["residual_scale"])
    assert list(description.data_range) == options["data_range"]
    assert description.beta_schedule == BetaSchedule.read(options["beta_schedule"])


@pytest.mark.parametrize("scale", SHIPPED["clean"])
def test_seventy_per_cent_of_the_multiplications_are_binary(scale):
    cost = count_cost(build_network(load_options(shipped_path(f"train_BIDiffSR_small_x{scale}"))["network_g"]))
    norms = sum(module.ops_fp for module in cost.modules if module.kind == "NormSwish")
    # Of the 5 operations that a GroupNorm counts for an element, 2 multiply: the square and the gain.
    multiplications = cost.ops_fp - norms * 3 / 5
    assert norms > 0 and cost.ops_binary / (cost.ops_binary + multiplications) >= 0.7


@pytest.mark.parametrize("scale", SHIPPED["clean"])
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


FILES = [path.name for path in all_shipped_weights()]


def test_all_files_are_in_the_table_and_together_small():
    assert sorted(FILES) == sorted(path.name for path in FOLDER.glob("*.safetensors"))
    assert INPUTS.keys() == SHIPPED.keys()
    assert sum((FOLDER / file).stat().st_size for file in FILES) <= 12 * MEGABYTE


@pytest.mark.parametrize("file", FILES)
def test_files_say_what_they_are_to_programs_that_hand_on_tensors_alone(file):
    said = from_tensors(load_file(FOLDER / file))
    assert said is not None and said["network_g"]["type"] == "BIDiffSRUNet"
    assert f"x{said['scale']}" in file


def test_kinds_of_input_without_weights_are_not_offered(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["upscale", "--help"])
    text = capsys.readouterr().out
    assert all(INPUTS[kind] in " ".join(text.split()) for kind in SHIPPED)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    command = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "large"), "--input"]
    assert main([*command, "painting"]) == 2
    assert f"to be one of {', '.join(SHIPPED)}, got 'painting'" in capsys.readouterr().err
    assert main([*command, "clean", "--weights", str(shipped_weights(2))]) == 2
    assert "expected --input without --weights" in capsys.readouterr().err


def test_quality_selects_a_set_of_parameters(tmp_path, capsys, tiny_network):
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / "a.png")
    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    packed = pack(tiny_network, "torch")
    quick, slow = (Description(network_g, scale=2, steps=n, beta_schedule={"n_timestep": 100}) for n in (1, 4))
    both, one = tmp_path / "both.safetensors", tmp_path / "one.safetensors"
    save_packed(packed, both, quick, sets={"perceptual": (packed, slow)})
    save_packed(packed, one, quick)
    results, qualities = [], (["--quality", quality] for quality in QUALITIES)
    for file, further in ((one, []), *((both, arguments) for arguments in ([], *qualities))):
        out = tmp_path / str(len(results))
        command = ["upscale", str(tmp_path / "a.png"), "-o", str(out), "--weights", str(file), *further]
        assert main(command) in (None, 0)
        results.append(np.array(Image.open(out / "a.png")))
    assert all(np.array_equal(results[0], result) for result in results[1:3])
    expected = Upscaler.from_file(one, steps=4)(np.array(Image.open(tmp_path / "a.png")))
    assert np.array_equal(results[3], expected) and not np.array_equal(results[3], results[0])
    for call in (Upscaler.from_file, Upscaler.from_pretrained):
        assert call(both, quality="perceptual").timesteps == 4 and call(both).timesteps == 1
    capsys.readouterr()
    command = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "no"), "--weights", str(one)]
    assert main([*command, "--quality", "perceptual"]) == 2
    assert capsys.readouterr().err.strip().endswith("one.safetensors to be one of fidelity, got 'perceptual'")
    assert not (tmp_path / "no").exists()


def test_another_scale_has_no_weights(tmp_path, capsys):
    with pytest.raises(InputError, match="scale of 2 or 4"):
        Upscaler.shipped(3)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "large"), "--scale", "3"]) == 2
    assert "scale of 2 or 4" in capsys.readouterr().err
    assert not (tmp_path / "large").exists()

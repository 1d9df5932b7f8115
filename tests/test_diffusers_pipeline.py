"""The diffusers pipeline: the images of `Upscaler`, and diffusers' schedulers, files and callbacks."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from child import run_code
from PIL import Image

from bidiffsr_arch import Upscaler
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.diffusers_pipeline import BIDiffSRNetwork, BIDiffSRPipeline
from bidiffsr_arch.errors import InputError

pytestmark = pytest.mark.hub

SCHEDULE = dict(n_timestep=100, linear_start=1e-4, linear_end=5e-2, num_inference_steps=3)
IMAGES = {
    "colour": np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8),
    "gray": np.random.default_rng(1).integers(0, 256, (9, 12), np.uint8),
    "alpha": np.random.default_rng(2).integers(0, 256, (9, 12, 4), np.uint8),
    "16 bits": np.random.default_rng(3).integers(0, 65536, (9, 12, 3), np.uint16),
}


@pytest.fixture(params=["float", "packed"])
def folder(request, tiny_network: BIDiffSRUNet, tmp_path: Path) -> Path:
    from bidiffsr_arch.packed import pack
    from bidiffsr_arch.pretrained import save_pretrained

    network = pack(tiny_network, "torch") if request.param == "packed" else tiny_network
    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    options = dict(network_g=network_g, scale=2, diffuse="residual", beta_schedule=SCHEDULE)
    return save_pretrained(network, tmp_path / "net", options)


@pytest.fixture
def pipe(folder: Path) -> BIDiffSRPipeline:
    pipe = BIDiffSRPipeline.from_weights(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_those_of_the_upscaler_to_the_last_bit(pipe, folder, kind):
    image = IMAGES[kind]
    for steps, seed, tile in ((None, 0, 256), (5, 7, 16)):
        expected = Upscaler.from_file(folder, steps=steps, seed=seed, tile=tile, overlap=4)(image)
        result = pipe(image, steps, seeded(seed), "np", tile=tile, overlap=4).images[0]
        np.testing.assert_array_equal(result, expected)
    if kind != "16 bits":
        (made,) = pipe(Image.fromarray(image), generator=seeded(0), return_dict=False)[0]
        np.testing.assert_array_equal(np.asarray(made), Upscaler.from_file(folder)(image))


@pytest.mark.parametrize("name", ["DDPM", "UniPCMultistep", "EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_other_schedulers_are_those_of_the_upscaler(tiny_network, tmp_path, name, prediction):
    """Equal to 1e-5 in [0, 1] after setting the scheduler, and to the original after setting it back."""
    tiny_network.save_pretrained(tmp_path, scale=2, beta_schedule=SCHEDULE | {"prediction_type": prediction})
    pipe = BIDiffSRPipeline.from_weights(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 8, 10, generator=seeded(0))
    first = pipe.scheduler
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(first.config)
    upscaler = Upscaler.from_file(tmp_path, sampler=name, steps=4, seed=5)
    result = pipe(image, 4, seeded(5), "pt").images
    torch.testing.assert_close(result, upscaler.sample(image), atol=1e-5, rtol=0)
    pipe.scheduler = type(first).from_config(pipe.scheduler.config)
    upscaler = Upscaler.from_file(tmp_path, steps=4, seed=5)
    torch.testing.assert_close(pipe(image, 4, seeded(5), "pt").images, upscaler.sample(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["HeunDiscrete", "KDPM2Discrete", "PNDM"])
def test_steps_are_those_of_the_options_where_a_step_calls_the_network_more_than_once(tiny_network, tmp_path, name):
    tiny_network.save_pretrained(tmp_path, scale=2, beta_schedule=SCHEDULE | {"scheduler_type": name,
                                                                             "num_inference_steps": 5})  # fmt: skip
    pipe = BIDiffSRPipeline.from_weights(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 8, 10, generator=seeded(0))
    expected = Upscaler.from_file(tmp_path).sample(image)
    torch.testing.assert_close(pipe(image, output_type="pt").images, expected, atol=1e-5, rtol=0)


CHILD = """
import sys, numpy, torch
from bidiffsr_arch.diffusers_pipeline import BIDiffSRPipeline

pipe = BIDiffSRPipeline.from_pretrained(sys.argv[1])
assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler", pipe.scheduler
image = numpy.load(sys.argv[2])
result = pipe(image, 3, torch.Generator().manual_seed(2), "np").images[0]
numpy.save(sys.argv[3], result)
"""


def test_a_pipeline_makes_a_round_trip_into_a_new_process(pipe, tmp_path):
    """diffusers finds the network's class by its module's name."""
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "pipe")
    assert {"model_index.json", "unet", "scheduler"} <= {path.name for path in (tmp_path / "pipe").iterdir()}
    np.save(tmp_path / "in.npy", IMAGES["colour"])
    arguments = [str(tmp_path / name) for name in ("pipe", "in.npy", "out.npy")]
    done = run_code(CHILD, *arguments, imported=("torch",))
    assert done.returncode == 0, done.stderr
    expected = pipe(IMAGES["colour"], 3, seeded(2), "np").images[0]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    alone = Upscaler.from_pretrained(tmp_path / "pipe" / "unet")  # the network's folder is one of the Hub's
    assert alone(IMAGES["gray"]).shape == (18, 24)


def test_the_network_alone_makes_a_round_trip(pipe, tmp_path):
    pipe.unet.save_pretrained(tmp_path / "unet")
    again = BIDiffSRNetwork.from_pretrained(tmp_path / "unet")
    assert again.config.scale == 2 and again.config.network_g["inner_channel"] == 8
    x = torch.rand(1, 3, 8, 8, generator=seeded(0))
    with torch.no_grad():
        assert torch.equal(again(x, x, torch.tensor([7])), pipe.unet(x, x, torch.tensor([7])))


def test_callbacks_see_and_change_every_step(pipe):
    seen = []

    def watch(pipeline, step, timestep, tensors):
        assert pipeline is pipe and tensors["latents"].shape == (1, 3, 18, 24)
        seen.append((step, int(timestep)))

    result = pipe(IMAGES["colour"], 4, seeded(0), "np", callback_on_step_end=watch).images[0]
    assert [step for step, _ in seen] == [0, 1, 2, 3] and seen == sorted(seen, key=lambda pair: -pair[1])
    np.testing.assert_array_equal(result, pipe(IMAGES["colour"], 4, seeded(0), "np").images[0])
    changed = pipe(IMAGES["colour"], 4, seeded(0), "np",
                   callback_on_step_end=lambda *given: {"latents": given[3]["latents"] * 0}).images[0]  # fmt: skip
    assert (changed != result).any()
    pipe(IMAGES["colour"], 2, callback_on_step_end=lambda *given: seen.append(given[3]),
         callback_on_step_end_tensor_inputs=())  # fmt: skip
    assert seen[-1] == {}


def test_diffusers_refuses_offloading_whose_hooks_would_never_run(pipe):
    with pytest.raises(ValueError, match="Model CPU offload cannot be enabled"):
        pipe.enable_model_cpu_offload()


def test_the_progress_bar_counts_the_steps(pipe, capsys):
    pipe.set_progress_bar_config(disable=False)
    pipe(IMAGES["colour"], 4)
    assert "4/4" in capsys.readouterr().err


def test_several_images_at_once(pipe):
    images = [IMAGES["colour"], IMAGES["gray"], IMAGES["colour"]]
    result = pipe(images, 2, [seeded(1), seeded(2), seeded(3)], "np").images
    for image, seed, made in zip(images, (1, 2, 3), result, strict=True):
        np.testing.assert_array_equal(made, pipe(image, 2, seeded(seed), "np").images[0])
    batch = torch.rand(2, 3, 8, 8, generator=seeded(0))
    tensors = pipe(batch, 2, output_type="pt").images
    assert tensors.shape == (2, 3, 16, 16)
    assert torch.equal(tensors[1:], pipe(batch[1:], 2, output_type="pt").images)
    assert pipe(IMAGES["alpha"], 2, output_type="pt").images.shape == (1, 4, 18, 24)
    assert pipe(batch, 2).images[1].size == (16, 16)


def test_wrong_arguments_are_reported_in_one_line(pipe):
    with pytest.raises(InputError, match="expected output_type to be one of pil, np, pt"):
        pipe(IMAGES["colour"], output_type="jpg")
    with pytest.raises(InputError, match="a generator for each of 1 images, got 2"):
        pipe(IMAGES["colour"], generator=[seeded(0), seeded(1)])
    with pytest.raises(InputError, match='output_type="np" for 16-bit colour'):
        pipe(IMAGES["16 bits"])
    with pytest.raises(InputError, match="expected a PIL image or an array"):
        pipe("image.png")

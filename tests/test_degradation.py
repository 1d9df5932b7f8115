"""`degradation: realesrgan`: LQ that BasicSR's own model makes, its pool of training pairs, and exact resuming."""

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models.base_model import BaseModel
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils import USMSharp, img_process_util
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import basicsr, log_of, losses
from test_environment import put
from test_resume import assert_same_end, train_until
from torch.utils.data import default_collate

from bidiffsr_arch.config.degradation import Degradation
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.degradation import RealESRGANDegradation, _check_pool
from bidiffsr_arch.training.sample_order import Request, SampleIndex, SeededDataset

Options = dict[str, Any]


def with_degradation(run_options: Options) -> Options:
    """Four iterations of one pair, with a pool of two."""
    train = run_options["datasets"]["train"]
    for key in ("task", "dataroot_lq", "filename_tmpl"):
        del train[key]
    train |= dict(type="RealESRGANDataset", gt_size=32, batch_size_per_gpu=1, dataset_enlarge_ratio=2)
    del run_options["datasets"]["val"]
    run_options["network_g"]["dropout"] = 0.3
    run_options["logger"]["save_checkpoint_freq"] = 1
    return run_options | dict(degradation="realesrgan", queue_size=2, val=None)


@pytest.fixture
def options(run_options: Options) -> Options:
    return with_degradation(run_options)


def as_sr_model(options: Options) -> None:
    options["model_type"] = "SRModel"
    options["network_g"] = dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2)
    del options["beta_schedule"]


def as_pairs(options: Options) -> None:
    options["datasets"]["train"] |= dict(type="RealESRGANPairedDataset", dataroot_lq="data/LR", filename_tmpl="{}x2")
    options["datasets"]["train"] |= dict(gt_size=16)
    del options["degradation"], options["queue_size"]


@pytest.fixture
def model_options(options: Options, workplace: Path) -> Options:
    return options | dict(num_gpu=0, is_train=True, dist=False, rank=0, world_size=1)


def batch_of(options: Options, *positions: int) -> dict[str, Any]:
    """A batch as the loader makes it."""
    dataset = SeededDataset(build_dataset({**options["datasets"]["train"], "phase": "train", "scale": 2}), 10)
    return default_collate([dataset[Request(position % 3, SampleIndex(0, position))] for position in positions])


def test_resuming_changes_nothing_before_and_after_the_pool_is_full(workplace, options, monkeypatch):
    options["name"] = "whole"
    assert basicsr("train", options) == 0
    options["datasets"]["train"] |= dict(num_worker_per_gpu=2, prefetch_mode="cpu")
    options["logger"]["save_checkpoint_freq"] = 4
    for stopped_at, filled in ((1, 1), (3, 2)):
        options["name"] = name = f"stopped_{stopped_at}"
        assert train_until(stopped_at, options, signal.SIGTERM, monkeypatch) == 143
        (pool,) = torch.load(f"experiments/{name}/training_states/{stopped_at}.state", weights_only=True)["pools"]
        assert pool["queue_ptr"] == filled and pool["queue_lr"].shape == (2, 3, 16, 16)
        assert basicsr("train", options, "--auto_resume") == 0
        assert "starts empty" not in log_of(f"experiments/{name}")
        assert losses(log_of(f"experiments/{name}")) == losses(log_of("experiments/whole"))[stopped_at:]
        assert_same_end("whole", name, 4)


def test_networks_without_diffusion_train_and_resume_by_it_too(workplace, options):
    options["name"] = "whole"
    as_sr_model(options)
    assert basicsr("train", options) == 0
    options["name"], options["train"]["total_iter"] = "stopped", 3
    assert basicsr("train", options) == 0
    options["train"]["total_iter"] = 4
    assert basicsr("train", options, "--auto_resume") == 0
    assert_same_end("whole", "stopped", 4)


def test_what_is_drawn_depends_on_the_seed_and_the_sample_alone(model_options):
    def degraded(seed: int = 10, position: int = 4) -> torch.Tensor:
        random.seed()
        np.random.seed()
        torch.seed()
        before = torch.get_rng_state()
        made = RealESRGANDegradation(model_options | dict(manual_seed=seed))
        lq = made.degrade(batch_of(model_options, position))["lq"]
        assert torch.equal(torch.get_rng_state(), before)  # which dropout draws from
        return lq

    first = degraded()
    assert torch.equal(degraded(), first)
    assert not torch.equal(degraded(seed=11), first) and not torch.equal(degraded(position=7), first)


def test_lq_and_gt_are_images_of_training_sizes(model_options):
    model_options["datasets"]["train"]["batch_size_per_gpu"] = 2
    batch = batch_of(model_options, 0, 1)
    assert batch["gt"].shape == (2, 3, 400, 400)
    made = RealESRGANDegradation(model_options).degrade(batch)
    assert made["lq"].shape == (2, 3, 16, 16) and made["gt"].shape == (2, 3, 32, 32)
    assert torch.equal((made["lq"] * 255).round() / 255, made["lq"]) and 0 <= made["lq"].min() <= made["lq"].max() <= 1
    plain = RealESRGANDegradation(model_options | dict(gt_usm=False)).degrade(batch)
    assert torch.equal(USMSharp()(plain["gt"]), made["gt"]) and not torch.equal(plain["gt"], made["gt"])


def test_without_degradation_lq_is_gt_made_smaller(model_options):
    """No sharpening, noise, blur or resizing in between, and JPEG of quality 99.9: what is left is downsampling."""
    nothing = dict(resize_prob=[0, 0, 1], resize_prob2=[0, 0, 1], second_blur_prob=0, jpeg_range=[99.9, 99.9])
    nothing |= dict(gaussian_noise_prob=1, gaussian_noise_prob2=1, noise_range=[0, 0], noise_range2=[0, 0])
    nothing |= dict(jpeg_range2=[99.9, 99.9])
    batch = batch_of(model_options, 3)
    pulse = torch.zeros(1, 21, 21)
    pulse[:, 10, 10] = 1
    gray = batch["gt"].mean(1, keepdim=True).repeat(1, 3, 1, 1)  # JPEG halves the resolution of colours
    batch |= dict(kernel1=pulse, kernel2=pulse, sinc_kernel=pulse, gt=gray)
    degradation = RealESRGANDegradation(model_options | nothing)
    degradation.usm_sharpener = lambda image: image
    made = degradation.degrade(batch)
    expected = torch.nn.functional.interpolate(made["gt"], scale_factor=0.5, mode="area")
    # Area, bilinear and bicubic downsampling differ a little; noise of 30 alone would be 24 / 255.
    assert (made["lq"] - expected).abs().mean() < 2 / 255


def test_the_pool_is_basicsrs(model_options):
    """Full after two pairs, and from then on pairs of earlier batches come back, each with its own GT."""
    made = RealESRGANDegradation(model_options | dict(queue_size=2, l1_gt_usm=False))
    pairs = []
    for position in range(5):
        batch = made.degrade(batch_of(model_options, position))
        pairs.append(batch["lq"].sum().item())
        assert made.queue_ptr == min(position + 1, 2)
    assert pairs[2] in pairs[:2] and made.queue_lr.shape == (2, 3, 16, 16)


def test_a_pool_of_another_size_begins_anew(model_options):
    made = RealESRGANDegradation(model_options)
    made.degrade(batch_of(model_options, 0))
    state = made.state()
    assert RealESRGANDegradation(model_options).restore(state)
    for changes in (dict(queue_size=4), dict(scale=4)):
        assert not RealESRGANDegradation(model_options | changes).restore(state)
    model_options["datasets"]["train"]["batch_size_per_gpu"] = 2
    assert not RealESRGANDegradation(model_options).restore(state)  # half a batch is free
    assert RealESRGANDegradation(model_options).restore({})  # nothing was trained before


def test_basicsrs_own_model_needs_no_cuda(model_options, monkeypatch):
    monkeypatch.setattr(SRGANModel, "__init__", BaseModel.__init__)  # without networks
    model = RealESRGANModel(model_options | Degradation().model_dump() | dict(queue_size=2, gt_size=32))
    model.feed_data(batch_of(model_options, 0))
    assert model.queue_lr.device == model.lq.device == torch.device("cpu") and model.queue_ptr == 1


@given(
    images=st.integers(1, 2),
    height=st.integers(27, 40),
    width=st.integers(27, 40),
    side=st.sampled_from([1, 7, 21, 51]),
    kernels=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_blurs_by_fft_are_basicsrs(images, height, width, side, kernels):
    """To 1e-5, some roundings of sums of float32 values in 0 .. 1."""
    generator = torch.Generator().manual_seed(side)
    image = torch.rand(images, 3, height, width, generator=generator)
    kernel = torch.rand(images if kernels else 1, side, side, generator=generator)
    kernel /= kernel.sum((1, 2), keepdim=True)
    expected = img_process_util.filter2D.__wrapped__(image, kernel)
    torch.testing.assert_close(img_process_util.filter2D(image, kernel), expected, rtol=0, atol=1e-5)


def without_degradation(options: Options) -> None:
    del options["degradation"], options["queue_size"]


def of_pairs(options: Options) -> None:
    options["datasets"]["train"] |= dict(type="PairedImageDataset", dataroot_lq="data/LR", filename_tmpl="{}x2")


def missing_image(options: Options) -> None:
    Path("list.txt").write_text("0.png\nnone.png\n")
    options["datasets"]["train"]["meta_info"] = "list.txt"


def unpaired_names(options: Options) -> None:
    Path("list.txt").write_text("0.png 0x2.png\n")
    as_pairs(options)
    options["datasets"]["train"]["meta_info"] = "list.txt"


WRONG = {
    "a pool that is no multiple": (put("datasets: train: batch_size_per_gpu", 4),
                                   "queue_size to be a multiple of the batch of 4 training pairs, got 2"),
    "a data set of pairs": (of_pairs, "type: RealESRGANDataset with degradation: realesrgan, got PairedImageDataset"),
    "no degradation": (without_degradation, "datasets: train: of pairs, got RealESRGANDataset, whose LQ"),
    "options without degradation": (lambda options: (as_pairs(options), options.update(jpeg_range=[30, 95])),
                                    "degradation: realesrgan with jpeg_range, got none"),
    "another degradation": (put("degradation", "bsrgan"), "degradation to be realesrgan, or ~, got 'bsrgan'"),
    "a crop that cannot be sharpened": (put("datasets: train: gt_size", 24), "gt_size of DF2K between 26 and 400"),
    "a crop larger than what is loaded": (put("datasets: train: gt_size", 402), "gt_size of DF2K between 26 and 400"),
    "kernels without weights": (put("datasets: train: kernel_list", ["iso"]), "kernel_prob to have a number for each"),
    "an unknown kernel": (put("datasets: train: kernel_list2", ["box"] * 6), "kernel_list2"),
    "a range the wrong way round": (put("noise_range", [30, 1]), "noise_range to be two numbers of at least 0"),
    "JPEG without loss": (put("jpeg_range2", [100, 100]), "jpeg_range2 from 1 to below 100"),
    "images too small to blur": (put("resize_range", [0.01, 1]), "resize_range of at least 0.0275"),
    "a scale that does not divide": (lambda options: (put("scale", 3)(options), put("datasets: train: gt_size", 33)(
        options)), "scale to divide 400"),
    "a key of pairs": (put("datasets: train: dataroot_lq", "data/LR"), "unknown key 'dataroot_lq' in datasets: train:"),
    "an image that is not there": (missing_image, "none.png cannot be read (No such file or directory)"),
    "a list that pairs nothing": (unpaired_names, "to be `GT's name, LQ's name`, got '0.png 0x2.png'"),
    "no such list of images": (put("datasets: train: meta_info", "none.txt"), "none.txt does not exist"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_one_line_before_anything_is_made(workplace, options, capsys, edit, message):
    edit(options)
    before = set(Path().iterdir())
    assert basicsr("train", options, "--dry-run") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line]
    assert message in said[-1] and not any("Traceback" in line for line in said)
    assert set(Path().iterdir()) - before <= {Path("options.yml")}


def test_the_pool_is_compared_with_the_batch_of_all_gpus(model_options):
    opt = model_options | dict(num_gpu=4, queue_size=6)
    with pytest.raises(InputError, match="multiple of the batch of 4 training pairs, got 6"):
        _check_pool(opt, None)
    _check_pool(opt | dict(dist=True), None)
    _check_pool(opt | dict(is_train=False), None)


def test_a_dry_run_reads_every_image(workplace, options, capsys):
    assert basicsr("train", options, "--dry-run") == 0
    assert "data train: 3 images\n" in capsys.readouterr().out
    Path("data/HR/1.png").write_bytes(b"no image")
    assert basicsr("train", options, "--dry-run") == 2
    assert "1 of 3 images cannot be used: data/HR/1.png" in capsys.readouterr().err


def test_pairs_fine_tune_what_the_degradation_trained(workplace, options):
    options["train"]["total_iter"] = 1
    assert basicsr("train", options) == 0
    as_pairs(options)
    options |= dict(name="tuned", path=dict(pretrain_network_g="experiments/tiny/models/net_g_latest.pth"))
    assert basicsr("train", options, "--dry-run") == 0
    assert basicsr("train", options) == 0
    Path("pairs.txt").write_text("0.png, 0x2.png\n2.png, 2x2.png\n")
    options["datasets"]["train"] |= dict(meta_info="pairs.txt", dataset_enlarge_ratio=1)
    assert basicsr("train", options) == 0
    state = torch.load("experiments/tuned/training_states/1.state", weights_only=True)
    assert state["pools"] == []

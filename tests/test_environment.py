"""Option files whose values are valid alone but not together, on this machine, or with these files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_run import basicsr

from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.yaml import dump_options
from bidiffsr_arch.data.lmdb import write_lmdb
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training import environment
from bidiffsr_arch.training.option_check import check_options

Options = dict[str, Any]
WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


@pytest.fixture
def options(run_options: Options) -> Options:
    run_options["val"]["metrics"] = {"psnr": dict(type="calculate_psnr", crop_border=2)}
    return run_options | {"num_gpu": 0}


def check(options: Options, is_train: bool = True) -> Options:
    Path("file.yml").write_text(dump_options(json_plain(options)))
    loaded = load_options("file.yml")
    check_options(loaded, "file.yml", is_train)
    return loaded


def json_plain(options: Options) -> Options:
    return json.loads(json.dumps(options))


def put(place: str, value: Any) -> Callable[[Options], None]:
    """An edit of one key."""

    def edit(options: Options) -> None:
        *parents, key = place.split(": ")
        block = options
        for parent in parents:
            block = block[parent]
        block[key] = value

    return edit


def as_sr_model(options: Options) -> None:
    options["model_type"] = "SRModel"
    options["network_g"] = dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2)
    del options["beta_schedule"]


def perceptual(options: Options) -> None:
    as_sr_model(options)
    options["train"]["perceptual_opt"] = dict(type="PerceptualLoss", layer_weights={"conv5_4": 1})


def lpips_loss(options: Options) -> None:
    as_sr_model(options)
    options["train"]["perceptual_opt"] = dict(type="LPIPSLoss")


def meta_info(text: str) -> Callable[[Options], None]:
    def edit(options: Options) -> None:
        Path("meta.txt").write_text(text)
        options["datasets"]["train"]["meta_info_file"] = "meta.txt"

    return edit


def bicubic(options: Options) -> None:
    options["model_type"] = "BicubicModel"
    del options["network_g"]
    for data in (options["datasets"]["val"],):
        data |= dict(dataroot_lq=data["dataroot_gt"], filename_tmpl="{}")


COSINE = "CosineAnnealingRestartLR"
TRAINING = {
    "cosine's periods end early": (put("train: scheduler", dict(type=COSINE, periods=[1, 1], restart_weights=[1, 1])),
                                   r"periods to reach total_iter 4, got \[1, 1\], 2 together"),
    "periods without weights": (put("train: scheduler", dict(type=COSINE, periods=[2, 2])), "restart_weights"),
    "a milestone in the warm-up": (
        lambda options: options["train"].update(
            warmup_iter=3, scheduler=dict(type="MultiStepLR", milestones=[2], gamma=0.5)),
        "milestones after warmup_iter 3, got 2"),
    "a warm-up without end": (put("train: warmup_iter", 5), "warmup_iter of at most total_iter 4"),
    "a loss for each pixel": (put("train: pixel_opt: reduction", "none"), "reduction: mean or sum"),
    "LMDB in plain folders": (put("datasets: train: io_backend", {"type": "lmdb"}), "data/HR to be a database"),
    "an empty list of images": (meta_info(""), "meta.txt, which is empty"),
    "a blank line in a list of images": (meta_info("0.png\n\n1.png\n"), "line 2 of .*meta.txt, which is blank"),
    "a list of images in another encoding": (
        lambda options: (meta_info("")(options), Path("meta.txt").write_bytes(b"\xff.png")),
        "text in UTF-8 in .*meta.txt"),
    "wandb without TensorBoard": (put("logger: wandb", {"project": "mine"}), "use_tb_logger to be true with wandb"),
    "wandb that is not installed": (
        lambda options: options["logger"].update(wandb={"project": "mine"}, use_tb_logger=True),
        "expected the package wandb"),
    "a metric of tensors": (put("val: metrics: psnr: type", "calculate_psnr_pt"), "use calculate_psnr"),
    "NIQE of small images": (put("val: metrics: psnr", dict(type="calculate_niqe", crop_border=0)),
                             "at least 96x192 pixels for val: metrics: psnr"),
    "SSIM of small images": (put("val: metrics: psnr", dict(type="calculate_ssim", crop_border=6)),
                             "at least 23x23 pixels .* got a smaller one, data/HR/0.png"),
    "a crop_border that leaves nothing": (put("val: metrics: psnr: crop_border", 10), "at least 21x21 pixels"),
    "a crop that scale does not divide": (put("datasets: train: gt_size", 15), "gt_size to be a multiple of scale 2"),
    "a network of three channels": (put("network_g: in_channel", 3), "images of 3 channels"),
    "a diffusion network without diffusion": (
        put("model_type", "SRModel"),
        r"a network of \(image\) for SRModel, got BIDiffSRUNet of \(x_t, condition, time\)"),
    "a network without diffusion in diffusion": (put("network_g", dict(type="BBCUNet", num_feat=8, upscale=2)),
                                                 r"of \(x_t, condition, time\) for BIDiffSRModel, got BBCUNet of"),
    "BasicSR's network in diffusion": (put("network_g", dict(type="EDSR", num_in_ch=3, num_out_ch=3)),
                                       r"of \(x_t, condition, time\) for BIDiffSRModel, got EDSR of \(x\)"),
    "a network that predicts one channel": (put("network_g: out_channel", 1), "out_channel to be 3"),
    "a perceptual loss of noise": (put("train: perceptual_opt", {"type": "PerceptualLoss"}),
                                   "prediction_type sample or v_prediction"),
    "LPIPS as a loss without weights": (lpips_loss, "train: perceptual_opt: expected weights of LPIPS \\(alex\\)"),
    "a perceptual loss offline": (perceptual, "weights of vgg19 for train: perceptual_opt, could not fetch"),
    "an unknown scheduler": (put("train: scheduler: type", "MultiStep"), "did you mean 'MultiStepLR'"),
    "an unknown optimizer": (put("train: optim_g: type", "Adan"), "optim_g: type to be one of Adam, AdamW"),
    "an argument of another optimizer": (put("train: optim_g", dict(type="SGD", lr=1, betas=[0, 0])),
                                         "unknown key 'betas'"),
    "too few steps for a sampler": (
        lambda options: options["beta_schedule"].update(scheduler_type="PNDM", num_inference_steps=2),
        "PNDM supports .* the least is 4"),
    "an argument that a sampler cannot use": (put("beta_schedule: steps_offset", "a"), "with which DDIM can sample"),
    "lists of unequal length": (put("datasets: train: dataroot_gt", ["data/HR"]), "as many folders"),
}  # fmt: skip


@pytest.fixture
def offline(monkeypatch):
    """Make torch's downloads fail."""

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_the_options_are_possible_before_they_are_edited(workplace, options):
    check(options)


@pytest.mark.parametrize("case", TRAINING)
def test_impossible_training_is_reported_before_anything_is_written(workplace, options, offline, monkeypatch, case):
    if "not installed" in case:
        found = environment.find_spec
        monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "wandb" else found(name))
    edit, said = TRAINING[case]
    edit(options)
    with pytest.raises(InputError, match=said) as caught:
        check(options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file.yml: ")


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_the_commands_report_it_too(workplace, options, capsys, arguments):
    options["val"]["metrics"]["psnr"]["crop_border"] = 10
    assert basicsr("train", options, *arguments) == 2
    error = capsys.readouterr().err
    assert "at least 21x21 pixels" in error and error.count("basicsr: ") == 1
    assert not Path("experiments").exists()


def test_bicubic_upsampling_needs_smaller_images(workplace, options):
    options["datasets"] = {"val": options["datasets"]["val"]}
    bicubic(options)
    with pytest.raises(InputError, match=r"2 times smaller than GT .* got one of GT's size for data/HR/0\.png"):
        check(options, is_train=False)
    options["datasets"]["val"] |= dict(dataroot_lq="data/LR", filename_tmpl="{}x2")
    check(options, is_train=False)


WITHOUT_GT = {
    "NIQE of small results": (put("val: metrics: niqe", dict(type="calculate_niqe", crop_border=0)),
                              r"at least 96x192 pixels for val: metrics: niqe .*got a smaller one, data/LR/0x2\.png"),
    "LMDB in plain folders": (put("datasets: val: io_backend", {"type": "lmdb"}), "data/LR to be a database"),
    "a folder without images": (put("datasets: val: dataroot_lq", "data"), "images in datasets: val: dataroot_lq"),
    "an empty list of images": (lambda options: (meta_info("")(options), put("datasets: val: meta_info_file",
                                                 "meta.txt")(options)), "meta.txt, which is empty"),
    "no folder": (lambda options: options["datasets"]["val"].pop("dataroot_lq"), "the key `dataroot_lq:`"),
    "no way to store files": (lambda options: options["datasets"]["val"].pop("io_backend"), "the key `io_backend:`"),
    "mean without std": (put("datasets: val: mean", [0.5] * 3), "both mean and std"),
}  # fmt: skip


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("case", WITHOUT_GT)
def test_what_images_without_gt_cannot_do_is_one_line(workplace, options, case, is_train):
    edit, said = WITHOUT_GT[case]
    alone = dict(name="alone", type="SingleImageDataset", dataroot_lq="data/LR", io_backend=dict(type="disk"))
    options["datasets"]["val"] = alone | {"meta_info_file": None}
    if not is_train:
        options["datasets"]["train"] = alone
    edit(options)
    if not is_train:
        del options["datasets"]["train"]
    with pytest.raises(InputError, match=said) as caught:
        check(options, is_train)
    assert "\n" not in str(caught.value)


def test_images_without_gt_are_tested_by_what_needs_none(workplace, options):
    """With `meta_info_file: ~`, too, and NIQE where the results are large enough."""
    alone = dict(name="alone", type="SingleImageDataset", dataroot_lq="large", io_backend=dict(type="disk"))
    Path("large").mkdir()
    cv2.imwrite("large/a.png", np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8))
    options["datasets"] = {"val": alone | {"meta_info_file": None}}
    options["val"]["metrics"]["niqe"] = dict(type="calculate_niqe", crop_border=0)
    options["model_type"], options["path"] = "BicubicModel", {}
    del options["network_g"]
    assert "meta_info_file" not in check(options, is_train=False)["datasets"]["val"]
    assert basicsr("test", options) == 0


@WITHOUT_CUDA
def test_prefetching_by_cuda_without_cuda_is_off(workplace, options, capsys):
    options["datasets"]["train"]["prefetch_mode"] = "cuda"
    assert check(options)["datasets"]["train"]["prefetch_mode"] is None
    assert re.fullmatch("warning: .*prefetch_mode: cuda needs CUDA.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(("phase", "workers", "kept"), [("train", 0, False), ("train", 2, True), ("val", 2, False)])
def test_persistent_workers_without_workers_are_off(workplace, options, capsys, phase, workers, kept):
    options["datasets"][phase] |= dict(persistent_workers=True, num_worker_per_gpu=workers)
    assert check(options)["datasets"][phase]["persistent_workers"] is kept
    assert capsys.readouterr().err.count("warning: ") == (not kept)


def test_a_test_without_suffix_gets_the_default(workplace, options, capsys):
    del options["val"]["suffix"], options["datasets"]["train"]
    assert check(options, is_train=False)["val"]["suffix"] is None
    assert capsys.readouterr().err.count("warning: val: suffix is missing") == 1


def test_databases_whose_names_have_a_suffix_are_pairs(workplace, options):
    for side in ("HR", "LR"):
        write_lmdb(Path("data", side), Path(f"{side}.lmdb"))
    data = options["datasets"]["train"]
    data |= dict(dataroot_gt="HR.lmdb", dataroot_lq="LR.lmdb", io_backend={"type": "lmdb"})
    check(options)
    sample = build(data)[1]
    assert (sample["gt_path"], sample["lq_path"]) == ("1", "1x2")
    Path("LR.lmdb/meta_info.txt").write_text("0x2.png (12,10,3) 1\n1x4.png (12,10,3) 1\n2x2.png (12,10,3) 1\n")
    with pytest.raises(InputError, match=r"expected in LR\.lmdb the names of HR\.lmdb, all with the same suffix"):
        build(data)


def test_databases_may_have_parentheses_in_names_and_lines_without_sizes(workplace, options):
    for side, image in (("HR", 24), ("LR", 12)):
        Path(f"named/{side}").mkdir(parents=True)
        for name in ("photo(1)", "photo(2)"):
            cv2.imwrite(f"named/{side}/{name}.png", np.zeros((image, image, 3), np.uint8))
        write_lmdb(Path("named", side), Path(f"{side}.lmdb"))
    data = options["datasets"]["val"]
    data |= dict(dataroot_gt="HR.lmdb", dataroot_lq="LR.lmdb", io_backend={"type": "lmdb"}, filename_tmpl="{}")
    check(options)
    options["val"]["metrics"]["psnr"]["crop_border"] = 12
    with pytest.raises(InputError, match=r"got a smaller one, photo\(1\)"):
        check(options)
    Path("HR.lmdb/meta_info.txt").write_text("photo(1).png\nphoto(2).png 1\n")
    check(options)


def build(data: Options) -> Any:
    from basicsr.data.paired_image_dataset import PairedImageDataset

    return PairedImageDataset(json_plain(data) | {"phase": "train", "scale": 2, "gt_size": 4})


def test_several_folders_are_one_data_set(workplace, options):
    for side in ("HR", "LR"):
        Path(f"more/{side}").mkdir(parents=True)
    image = np.full((20, 24, 3), 9, np.uint8)
    cv2.imwrite("more/HR/a.png", image)
    cv2.imwrite("more/LR/ax2.png", image[::2, ::2])
    data = options["datasets"]["train"]
    data |= dict(dataroot_gt=["data/HR", "more/HR"], dataroot_lq=["data/LR", "more/LR"])
    check(options)
    assert [Path(pair["gt_path"]).name for pair in build(data).paths] == ["0.png", "1.png", "2.png", "a.png"]
    options["train"]["total_iter"], options["val"] = 1, None
    del options["datasets"]["val"]
    assert basicsr("train", options) == 0
    data["dataroot_lq"][1] = "nowhere"
    assert basicsr("train", options) == 2


@pytest.mark.parametrize(("in_channel", "out_channel"), [(6, 3), (2, 1)])
def test_the_luma_channel_alone_is_trained_and_validated(workplace, options, in_channel, out_channel):
    options["network_g"] |= dict(in_channel=in_channel, out_channel=out_channel)
    for data in options["datasets"].values():
        data["color"] = "y"
    options["train"]["total_iter"], options["val"]["save_img"] = 1, False
    assert basicsr("train", options) == 0

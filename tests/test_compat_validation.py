"""Validation by BasicSR: the last iteration's number, images without GT, and normalized images."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.models import build_model
from basicsr.models.sr_model import SRModel
from small_run import basicsr, log_of

Options = dict[str, Any]
NORMALIZED = dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.5])


@pytest.fixture
def options(run_options: Options) -> Options:
    """A small SRModel of stock BasicSR."""
    run_options["model_type"] = "SRModel"
    run_options["network_g"] = dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2)
    run_options["val"] |= dict(save_img=False, metrics={"psnr": dict(type="calculate_psnr", crop_border=2)})
    run_options["train"]["total_iter"] = 3
    del run_options["beta_schedule"]
    return run_options | {"num_gpu": 0}


def as_test(options: Options, model: str, **changes: Any) -> float:
    """PSNR of a test with a model."""
    data = options["datasets"].pop("val", None) or options["datasets"]["test_1"]
    options["datasets"] = {"test_1": data | changes}
    if model == "BicubicModel":
        options |= dict(model_type=model, network_g=None)
    assert basicsr("test", options) == 0
    return float(re.search(r"# psnr: (\S+)", log_of(f"results/{options['name']}")).group(1))


def test_the_last_validation_has_the_last_iterations_number(workplace, options):
    assert basicsr("train", options) == 0
    assert re.findall(r"Best: \S+ @ (\d+) iter", log_of("experiments/tiny")) == ["3"]


def test_mean_and_std_are_undone_before_metrics(workplace, options):
    """An SRModel's network works on normalized values; this one repeats pixels, whatever they are."""
    plain = as_test(options, "BicubicModel")
    options["name"] = "normalized"
    assert as_test(options, "BicubicModel", **NORMALIZED) == pytest.approx(plain, abs=1e-3)


def test_an_sr_models_results_are_in_the_units_of_pixels(workplace, options, monkeypatch):
    def repeat(self: SRModel) -> None:
        self.output = torch.nn.functional.interpolate(self.lq, scale_factor=2)

    monkeypatch.setattr(SRModel, "test", repeat)
    plain = as_test(options, "SRModel")
    options["name"] = "normalized"
    assert as_test(options, "SRModel", **NORMALIZED) == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("is_train", [True, False])
def test_images_without_gt_get_no_metrics_that_need_it(workplace, options, is_train):
    lonely = dict(name="lonely", type="SingleImageDataset", dataroot_lq="data/LR", io_backend=dict(type="disk"))
    options["val"]["metrics"]["niqe"] = dict(type="calculate_niqe", crop_border=0)
    options["val"]["metrics"].pop("niqe")  # their images are too small for it
    if is_train:
        options["datasets"] |= {"val": lonely, "val_2": options["datasets"]["val"]}
        options["train"]["total_iter"] = 1
        assert basicsr("train", options) == 0
    else:
        options["datasets"] = {"test_1": lonely, "test_2": options["datasets"]["val"]}
        assert basicsr("test", options) == 0
    log = log_of("experiments/tiny" if is_train else "results/tiny")
    assert "lonely has no GT: psnr cannot be computed" in log
    assert log.count("# psnr: ") == 1 and "Validation Set5" in log and "Validation lonely" not in log


def test_gt_of_another_batch_is_dropped(workplace, options):
    options |= dict(dist=False, rank=0, world_size=1, is_train=False)
    model = build_model(options)
    image = torch.rand(1, 3, 4, 4)
    model.feed_data({"lq": image, "gt": image})
    assert hasattr(model, "gt")
    model.feed_data({"lq": image})
    assert not hasattr(model, "gt")


def test_training_on_normalized_images_is_training_on_their_pixels(workplace, run_options):
    """A diffusion model's images are in [0, 1], whatever its `data_range` is."""
    run_options["val"]["metrics"] = {"psnr": run_options["val"]["metrics"]["psnr"]}
    run_options["train"]["total_iter"] = 1
    losses = []
    for name, normalization in (("plain", {}), ("normalized", NORMALIZED)):
        run_options["name"] = name
        for data in run_options["datasets"].values():
            data.update(normalization)
        assert basicsr("train", run_options | {"num_gpu": 0}) == 0
        log = log_of(f"experiments/{name}")
        losses.append([float(re.search(rf"{key}: (\S+)", log).group(1)) for key in ("l_pix", "# psnr")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_test_of_random_weights_prints_a_warning(workplace, options, capsys):
    options["path"]["pretrain_network_g"] = None
    as_test(options, "SRModel")
    said = capsys.readouterr().err
    assert "warning: path: pretrain_network_g is ~: random weights are tested; name a .pth there" in said
    torch.save({"params": build_network(options).state_dict()}, "net.pth")
    options["path"]["pretrain_network_g"] = "net.pth"
    as_test(options, "SRModel")
    assert "random weights" not in capsys.readouterr().err
    assert Path("net.pth").exists()


def build_network(options: Options) -> torch.nn.Module:
    from basicsr.archs import build_network

    return build_network(dict(options["network_g"]))

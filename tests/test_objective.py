"""Losses of the images that predictions imply."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from basicsr.models import build_model
from torch import nn

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.metrics import lpips_loss
from bidiffsr_arch.metrics.grid import grid_distance
from bidiffsr_arch.metrics.lpips import load_lpips, untrained_lpips
from bidiffsr_arch.metrics.lpips_loss import LPIPSLoss
from bidiffsr_arch.training.objective import Objective

SIDE = 32  # LPIPS needs 31 pixels


@pytest.fixture(scope="module")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backbone with random weights, under torchvision's names."""
    path = tmp_path_factory.mktemp("weights") / "alex.pth"
    state = untrained_lpips("alex").net.state_dict()
    torch.save({f"features.{name.split('.', 1)[1]}": value for name, value in state.items()}, path)
    return str(path)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return dict(lq=torch.rand(2, 3, SIDE // 2, SIDE // 2, generator=generator),
                gt=torch.rand(2, 3, SIDE, SIDE, generator=generator))  # fmt: skip


def logs(options: dict[str, Any], train: dict[str, Any], steps: int = 2) -> list[dict[str, float]]:
    torch.manual_seed(0)
    model = build_model(deepcopy(options | {"train": options["train"] | train}))
    found = []
    for iteration in range(1, steps + 1):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        found.append(dict(model.log_dict))
    return found


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "epsilon"])
@pytest.mark.parametrize("time_input", ["timestep", "noise_level"])
@pytest.mark.parametrize("diffuse", ["image", "residual"])
def test_the_target_implies_the_ground_truth(prediction, time_input, diffuse):
    schedule = dict(n_timestep=100, linear_start=1e-4, linear_end=5e-2, prediction_type=prediction)
    ranges = dict(diffuse=diffuse, time_input=time_input, data_range=[-1, 1])
    resolution = SuperResolution(DiffusionOptions(scale=2, beta_schedule=schedule, **ranges))
    gt, condition, noise = torch.rand(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = resolution.normalize(condition)
    x0 = resolution.to_x0(resolution.normalize(gt), condition)
    x_t, time, target = resolution.diffusion.training_sample(x0, noise, torch.tensor([0, 30, 60, 99]))
    # At the last timestep sqrt(abar) is 0.28, by which epsilon's rounding errors are divided.
    torch.testing.assert_close(resolution.implied_image(target, x_t, condition, time), gt, rtol=0, atol=2e-5)


def test_lpips_as_a_loss_is_the_metric_of_rgb_images(lpips_weights):
    x, gt = torch.rand(2, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    perceptual, style = LPIPSLoss(loss_weight=2.0, weights=lpips_weights).eval()(x, gt)
    with torch.no_grad():
        wanted = 2 * load_lpips("alex", lpips_weights, "cpu")(x * 2 - 1, gt * 2 - 1).mean()
    torch.testing.assert_close(perceptual, wanted, rtol=1e-6, atol=0)
    assert style is None
    perceptual.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_lpips_as_a_loss_is_seen_from_all_positions_of_the_stride(lpips_weights):
    x, gt = torch.rand(2, 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    loss = LPIPSLoss(weights=lpips_weights)
    shifted = [nn.functional.pad(images, (3, 0, 2, 1), mode="reflect") for images in (x, gt)]
    torch.manual_seed(0)
    values = {loss(x, gt)[0].item() for _ in range(200)}
    assert len(values) == 16 and loss.eval()(*shifted)[0].item() in values
    torch.manual_seed(1)
    first = loss.train()(x, gt)
    torch.manual_seed(1)
    assert loss(x, gt) == first


def test_lpips_as_a_loss_has_a_term_of_grids_on_demand(lpips_weights):
    x, gt = torch.rand(2, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    plain, _ = LPIPSLoss(weights=lpips_weights).eval()(x, gt)
    perceptual, grid = LPIPSLoss(weights=lpips_weights, grid_weight=3.0, grid_period=2).eval()(x, gt)
    assert perceptual == plain and grid == 3 * grid_distance(x, gt, 2) > 0
    assert LPIPSLoss(weights=lpips_weights, grid_weight=3.0, grid_period=2)(x, gt)[1] == grid  # not of shifted images


def test_a_diffusion_model_learns_by_the_image_that_it_predicts(options, lpips_weights, monkeypatch):
    monkeypatch.setattr(lpips_loss, "STRIDE", 1)  # shifts are drawn for each part of a batch
    options["beta_schedule"]["prediction_type"] = "sample"
    loss = dict(type="LPIPSLoss", loss_weight=0.5, weights=lpips_weights)
    plain, both = logs(options, {}), logs(options, {"perceptual_opt": loss})
    assert plain[0].keys() == {"l_pix"} and both[0].keys() == {"l_pix", "l_percep"}
    assert both[0]["l_pix"] == plain[0]["l_pix"] and both[1]["l_pix"] != plain[1]["l_pix"]
    accumulated = logs(options, {"perceptual_opt": loss, "accumulate": 2})
    for one, parts in zip(both, accumulated, strict=True):  # float32 sums in another order
        assert parts == pytest.approx(one, rel=1e-4)


def test_basicsrs_own_model_takes_it(options, lpips_weights):
    own = {key: value for key, value in options.items() if key != "beta_schedule"}
    own |= dict(model_type="SRModel", network_g=dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2))
    loss = dict(type="LPIPSLoss", weights=lpips_weights)
    assert logs(own, {"perceptual_opt": loss}, steps=1)[0].keys() == {"l_pix", "l_percep"}
    loss |= dict(grid_weight=1.0, grid_period=2)
    assert logs(own, {"perceptual_opt": loss}, steps=1)[0].keys() == {"l_pix", "l_percep", "l_style"}


def test_a_style_term_is_named_as_basicsr_names_it():
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, gt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (x - gt).mean(), (x - gt).square().mean()

    resolution = SuperResolution(DiffusionOptions(scale=2, beta_schedule=dict(n_timestep=10, prediction_type="sample")))
    images, time = torch.rand(2, 1, 3, 4, 4), torch.tensor([3])
    terms = Objective(nn.functional.l1_loss, Both(), resolution)(*images, [images[0], images[1], time])
    assert list(terms) == ["l_pix", "l_percep", "l_style"]

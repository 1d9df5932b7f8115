"""Every row of Table 2 trains, saves, resumes and tests: small networks of seven binarizers and SR3, on the demo's
photographs."""

from copy import deepcopy
from typing import Any

import cv2
import pytest
import torch
from basicsr.utils import img2tensor

from bidiffsr_arch.binary import BINARIZERS
from bidiffsr_arch.data.demo import write_demo
from bidiffsr_arch.training import BicubicModel, BIDiffSRModel

BASELINE = dict(rescale="pixelshuffle", fusion="concat", tar=False, taa=False)
ITERATIONS = 30


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """A batch of two crops of a demo photograph, HR 32x32 and LR 16x16, in [0, 1]."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, scales=(2,))
    hr = cv2.imread(str(sorted(root.glob("train/HR/*.png"))[0]))
    lr = cv2.imread(str(sorted(root.glob("train/LR_bicubic/X2/*.png"))[0]))
    crops = [(hr[2 * y : 2 * y + 32, 96:128], lr[y : y + 16, 48:64]) for y in (60, 90)]
    gt, lq = (torch.stack(img2tensor([crop / 255.0 for crop in side])) for side in zip(*crops, strict=True))
    return dict(lq=lq, gt=gt)


def network_options(name: str, tiny: dict[str, Any]) -> dict[str, Any]:
    if name == "SR3":
        one_bit = {"fp_res", "total_step", "dynamic_group"}
        return dict(type="SR3UNet", **{key: value for key, value in tiny.items() if key not in one_bit})
    return dict(type="BIDiffSRUNet", binarizer=name, **tiny, **({} if name == "bidiffsr" else BASELINE))


def train(model: BIDiffSRModel, data: dict[str, torch.Tensor], first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        model.feed_data(data)
        model.optimize_parameters(iteration)


def fixed_loss(model: BIDiffSRModel, data: dict[str, torch.Tensor]) -> float:
    """The loss of one batch with fixed timesteps and noise, in training mode."""
    model.feed_data(data)
    time = torch.tensor([20, 80])
    noise = torch.randn(model.gt.shape, generator=torch.Generator().manual_seed(1))
    network = deepcopy(model.net_g)
    with torch.no_grad():
        prediction = network(model.diffusion.add_noise(model.gt, noise, time), model.condition, time)
    return (prediction - noise).abs().mean().item()


@pytest.mark.parametrize("name", [*BINARIZERS, "SR3"])
def test_each_row_trains_saves_resumes_and_tests(name, options, tiny_options, photograph, tmp_path):
    options["network_g"] = network_options(name, tiny_options)
    torch.manual_seed(3)
    model = BIDiffSRModel(deepcopy(options))
    before = fixed_loss(model, photograph)
    train(model, photograph, 1, ITERATIONS)
    assert fixed_loss(model, photograph) < 0.9 * before

    model.save(epoch=0, current_iter=ITERATIONS)
    options["path"]["pretrain_network_g"] = str(tmp_path / f"net_g_{ITERATIONS}.pth")
    resumed = BIDiffSRModel(deepcopy(options))
    resumed.resume_training(torch.load(tmp_path / f"{ITERATIONS}.state", weights_only=True))
    for run in (model, resumed):
        train(run, photograph, ITERATIONS + 1, ITERATIONS + 2)
    assert resumed.get_current_log() == model.get_current_log()

    model.save(epoch=0, current_iter=ITERATIONS)
    tested = BIDiffSRModel(deepcopy(options) | dict(is_train=False))
    outputs = []
    for run in (model, tested):
        run.feed_data(photograph)
        run.test()
        outputs.append(run.output)
    assert torch.equal(*outputs) and outputs[0].shape == photograph["gt"].shape


def test_bicubic_is_a_model_like_any_other(options, photograph):
    from bidiffsr_arch.data.resize import imresize

    del options["network_g"]
    model = BicubicModel(options | dict(is_train=False))
    model.feed_data(photograph)
    model.test()
    image = (photograph["lq"][0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert (model.output[0] * 255).round().byte().permute(1, 2, 0).numpy().tolist() == imresize(image, 2).tolist()


def test_a_residual_network_learns_to_change_the_upsampled_image(options, photograph):
    """Untrained it returns that image, so only this shows that training does something."""
    options["network_g"] |= dict(type="BIDiffSRUNet", zero_init=True)
    options["beta_schedule"]["prediction_type"] = "sample"
    torch.manual_seed(3)
    model = BIDiffSRModel(deepcopy(options) | dict(diffuse="residual", residual_scale=4.0))
    losses = []
    for iteration in range(1, 2 * ITERATIONS + 1):
        train(model, photograph, iteration, iteration)
        losses.append(model.get_current_log()["l_pix"])
    tenth = len(losses) // 10
    assert sum(losses[-tenth:]) < sum(losses[:tenth])
    model.feed_data(photograph)
    model.test()
    assert (model.output - model.condition.clamp(0, 1)).abs().max() > 1 / 255

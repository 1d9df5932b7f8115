"""Learning from another network: few-step distillation, and predictions as part of the target."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from bidiffsr_arch.archs import BBCUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.config.yaml import dump_options, read_yaml
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.pretrained import save_pretrained
from bidiffsr_arch.training import BIDiffSRModel


def build(options: dict[str, Any], **train: Any) -> BIDiffSRModel:
    torch.manual_seed(options["manual_seed"])
    return BIDiffSRModel(deepcopy(options | {"train": options["train"] | train}))


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Two images whose LR is always the same; HR depends on the seed."""
    low = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return dict(lq=low, gt=torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))


def losses(model: BIDiffSRModel, first: int, last: int, seed: int = 0) -> list[float]:
    found = []
    for iteration in range(first, last + 1):
        model.feed_data(batch(seed))
        model.optimize_parameters(iteration)
        found.append(model.log_dict["l_pix"])
    return found


def assert_resumed_exactly(options: dict[str, Any], train: dict[str, Any], folder: Path, stop: int, last: int) -> None:
    """A training stopped after iteration `stop`, and saved in `folder`, has the losses of an uninterrupted one."""
    whole = losses(build(options, **train), 1, last)
    first = build(options, **train)
    losses(first, 1, stop)
    first.save(epoch=0, current_iter=stop)
    options["path"]["pretrain_network_g"] = str(folder / f"net_g_{stop}.pth")
    second = build(options, **train)
    second.resume_training(torch.load(folder / f"{stop}.state"))
    assert losses(second, stop + 1, last) == whole[stop:]


@pytest.fixture
def teacher(options: dict[str, Any], tmp_path: Path) -> Path:
    """Weights that differ from the student's initial ones, with their option file beside them."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    options["beta_schedule"]["prediction_type"] = "sample"
    trained = build(options | {"manual_seed": 11})
    losses(trained, 1, 3)
    trained.opt["path"]["models"] = trained.opt["path"]["training_states"] = str(folder)
    trained.save(epoch=0, current_iter=3)
    plain = {key: value for key, value in options.items() if key not in ("is_train", "dist", "rank", "world_size")}
    (folder / "net_g_3.yml").write_text(dump_options(plain | {"datasets": {}, "path": {}}))
    return folder / "net_g_3.pth"


@pytest.fixture(params=["float", "packed"])
def teachers_file(teacher: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "float":
        return teacher
    packed = teacher.with_suffix(".safetensors")
    assert main(["pack", str(teacher), "-opt", str(teacher.with_suffix(".yml")), "-o", str(packed)]) in (None, 0)
    return packed


def test_the_student_learns_the_teachers_image_of_the_same_noise(options, teachers_file):
    model = build(options, distill=dict(path=str(teachers_file), steps=3))
    model.feed_data(batch())
    _, noise = model._draw(model.gt, 1)
    weights = load_weights(teachers_file)
    x = noise
    sampler = model.diffusion.sampler(3)  # DDIM, whose last step returns x0
    condition = upsample(batch()["lq"], 2)
    with torch.no_grad():
        for t in sampler.timesteps:
            x = sampler.step(weights.network(x, condition, t.expand(2)), t, x).prev_sample
    torch.testing.assert_close(model.distillation.result(condition, noise), x.clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "sampler", [{"scheduler_type": "DDPM"}, {"eta": 0.5}, {"scheduler_type": "EulerAncestralDiscrete"}]
)
def test_a_teacher_that_draws_noise_is_refused(options, teacher, tmp_path, sampler):
    file = tmp_path / "noisy.yml"
    stored = read_yaml(teacher.with_suffix(".yml"))
    file.write_text(dump_options(stored | {"beta_schedule": stored["beta_schedule"] | sampler}))
    with pytest.raises(InputError, match="depends on the initial noise only in train: distill, got the sampler"):
        build(options, distill=dict(path=str(teacher), options=str(file)))


def test_distillation_needs_no_ground_truth(options, teacher):
    """The images of HR do not matter, and one fixed batch is learned."""
    distill = dict(path=str(teacher), steps=2)
    model = build(options, distill=distill, timestep_weighting=dict(sampler=1))
    found = losses(model, 1, 4)
    assert found == losses(build(options, distill=distill, timestep_weighting=dict(sampler=1)), 1, 4, seed=1)
    assert found != losses(build(options, timestep_weighting=dict(sampler=1)), 1, 4)
    for _ in range(30):
        losses(model, 1, 1)
    assert losses(model, 1, 1)[0] < 0.5 * found[0]


def test_a_teacher_equal_to_the_student_gives_no_gradient(options, teacher):
    options["path"]["pretrain_network_g"] = str(teacher)
    options["path"]["param_key_g"] = "params_ema"
    only = build(options, teacher=dict(path=str(teacher), weight=1))
    half = build(options, teacher=dict(path=str(teacher)))
    truth = build(options)
    (none,), (some,), (all_of_it,) = (losses(model, 1, 1) for model in (only, half, truth))
    assert none < 1e-7  # L1 of a difference that is rounding
    assert some == pytest.approx(all_of_it / 2, rel=1e-4)


@pytest.mark.parametrize("name", ["distill", "teacher"])
def test_a_resumed_training_goes_on_with_the_same_losses(options, teacher, tmp_path, name):
    assert_resumed_exactly(options, {name: dict(path=str(teacher))}, tmp_path, stop=2, last=4)


@pytest.mark.parametrize(
    ("changes", "train", "message"),
    [
        ({"scale": 4}, {"distill": {}}, "a teacher of x4 in train: distill, got .* of x2"),
        ({"scale": 4}, {"teacher": {}}, "a teacher of x4 in train: teacher, got .* of x2"),
        ({"data_range": [-1, 1]}, {"teacher": {}}, r"data_range: \[-1.0, 1.0\], as the student, got \[0, 1\]"),
        ({}, {"teacher": {"weight": 1.5}}, "weight to be a number above 0 and at most 1, got 1.5"),
        ({}, {"distill": {"steps": 101}}, "1 to 100 steps, at most as many as in training, got 101"),
        ({}, {"distill": {"path": None}}, "train: distill: path to be a string, got None"),
        ({}, {"distill": {"path": "nowhere.pth"}}, "expected weights at nowhere.pth"),
    ],
)
def test_wrong_teachers_are_refused(options, teacher, changes, train, message):
    train = {name: {"path": str(teacher)} | block for name, block in train.items()}
    with pytest.raises(InputError, match=message):
        build(options | changes, **train)


@pytest.mark.parametrize(
    ("name", "other"), [("trained_betas", [0.01] * 100), ("rescale_betas_zero_snr", True), ("linear_end", 0.04)]
)
def test_a_teacher_of_another_noise_schedule_is_refused(options, teacher, tmp_path, name, other):
    stored, file = read_yaml(teacher.with_suffix(".yml")), tmp_path / "other.yml"
    file.write_text(dump_options(stored | {"beta_schedule": stored["beta_schedule"] | {name: other}}))
    with pytest.raises(InputError, match=f"expected a teacher with {name}: .*, as the student, got .* in {teacher}"):
        build(options, teacher=dict(path=str(teacher), options=str(file)))


def test_a_teachers_residual_scale_matters_only_for_residuals(options, teacher, tmp_path):
    stored, file = read_yaml(teacher.with_suffix(".yml")), tmp_path / "other.yml"
    file.write_text(dump_options(stored | {"residual_scale": 3, "diffuse": "image"}))
    block = dict(path=str(teacher), options=str(file))
    assert build(options, teacher=block).teacher is not None
    file.write_text(dump_options(stored | {"residual_scale": 3, "diffuse": "residual"}))
    with pytest.raises(InputError, match=r"a teacher with residual_scale: 2\.0, as the student, got 3"):
        build(options | {"diffuse": "residual"}, teacher=block)


@pytest.mark.parametrize("name", ["distill", "teacher"])
def test_a_network_without_diffusion_is_no_teacher(options, tmp_path, name):
    arguments = dict(num_feat=8, num_block=1, upscale=2)
    network_g = {"type": "BBCUNet"} | arguments
    path = save_pretrained(BBCUNet(**arguments), tmp_path / "direct", dict(network_g=network_g, scale=2))
    with pytest.raises(InputError, match=f"expected a diffusion network as the teacher in train: {name}, got {path}"):
        build(options, **{name: dict(path=str(path))})

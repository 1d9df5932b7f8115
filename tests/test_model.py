"""BIDiffSRModel: preparation of images, training, saving, loading and sampling."""

import math
from copy import deepcopy
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.diffusion.images import is_finite, pad_to_multiple, upsample
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training import BIDiffSRModel  # isort: split

from basicsr.utils import get_root_logger  # after bidiffsr_arch, which patches what BasicSR imports

SR3 = dict(type="SR3UNet", inner_channel=8, norm_groups=4, channel_mults=[1, 2], res_blocks=1, dropout=0, image_size=16)


def build(options: dict[str, Any], **changes: Any) -> BIDiffSRModel:
    torch.manual_seed(options["manual_seed"])
    return BIDiffSRModel(deepcopy(options) | changes)


def batch(count: int = 2, size: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return dict(
        lq=torch.rand(count, 3, size // 2, size // 2, generator=generator),
        gt=torch.rand(count, 3, size, size, generator=generator),
    )


def super_resolve(model: BIDiffSRModel, lq: torch.Tensor) -> torch.Tensor:
    model.feed_data(dict(lq=lq))
    model.test()
    return model.output


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 2), st.sampled_from([1, 2, 3, 4]))
def test_condition_is_cv2s_cubic_upsampling(height, width, batch, scale):
    """By cv2 for float32 on the CPU, by torch otherwise, here in float64: with the same kernel and border they differ
    by float32 rounding of positions, 4e-6 at x3."""
    images = np.random.default_rng(0).random((batch, height, width, 3), dtype=np.float32)
    expected = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in images]
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    got = upsample(planes, scale)
    assert np.abs(got.permute(0, 2, 3, 1).numpy() - np.stack(expected)).max() < 1e-6
    torch.testing.assert_close(got.double(), upsample(planes.double(), scale), atol=1e-5, rtol=0)


@given(st.sampled_from([0.0, -1e38, math.nan, math.inf, -math.inf]), st.integers(0, 209))
def test_numbers_that_are_not_finite_are_found(value, place):
    image = torch.linspace(-1, 1, 210).reshape(1, 3, 7, 10).clone()
    image.view(-1)[place] = value
    assert is_finite(image) == math.isfinite(value)


def test_lq_of_hr_size_is_not_upsampled(options):
    model = build(options)
    data = batch()
    model.feed_data(data)
    assert model.condition.shape == data["gt"].shape
    model.feed_data(dict(lq=data["gt"], gt=data["gt"]))
    assert torch.equal(model.condition, data["gt"])


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 8]))
def test_padding_reflects_at_the_bottom_and_right(height, width, multiple):
    image = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[-2] % multiple == 0 and padded.shape[-1] % multiple == 0
    assert padded.shape[-2] - height < multiple and padded.shape[-1] - width < multiple
    expected = np.pad(image[0, 0].numpy(), [(0, padded.shape[-2] - height), (0, padded.shape[-1] - width)], "reflect")
    assert np.array_equal(padded[0, 0].numpy(), expected)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_images_of_any_size_are_super_resolved(options, height, width):
    model = build(options)
    out = super_resolve(model, torch.rand(1, 3, height, width))
    assert out.shape == (1, 3, 2 * height, 2 * width) and out.min() >= 0 and out.max() <= 1


def test_untrained_residual_network_returns_the_upsampled_image(options):
    options["network_g"]["zero_init"] = True
    options["beta_schedule"]["prediction_type"] = "sample"
    model = build(options, diffuse="residual")
    lq = torch.rand(1, 3, 7, 5)
    torch.testing.assert_close(super_resolve(model, lq), upsample(lq, 2).clamp(0, 1))


def test_sampling_depends_on_image_and_seed_alone(options):
    model = build(options)
    images = list(torch.rand(3, 1, 3, 6, 6))
    alone = [super_resolve(model, image) for image in images]
    backwards = [super_resolve(model, image) for image in reversed(images)]
    assert all(torch.equal(a, b) for a, b in zip(alone, reversed(backwards), strict=True))
    together = super_resolve(model, torch.cat(images))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)  # batches round otherwise
    model.opt["manual_seed"] += 1
    assert not torch.equal(super_resolve(model, images[0]), alone[0])


def losses(model: BIDiffSRModel, first: int, last: int) -> list[float]:
    out = []
    for iteration in range(first, last + 1):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        out.append(model.get_current_log()["l_pix"])
    return out


@pytest.mark.parametrize("diffuse", ["image", "residual"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_training_lowers_the_loss_of_a_fixed_draw(options, diffuse, prediction_type):
    options["beta_schedule"]["prediction_type"] = prediction_type
    model = build(options, diffuse=diffuse)

    def loss_of_the_first_draw() -> float:
        model.feed_data(batch())
        with torch.no_grad():
            x0 = model.super_resolution.to_x0(model.gt, model.condition)
            time, noise = model._draw(x0, 1)
            prediction = model.net_g(model.diffusion.add_noise(x0, noise, time), model.condition, time)
            return model.cri_pix(prediction, model.diffusion.target(x0, noise, time)).item()

    before = loss_of_the_first_draw()
    for _ in range(20):
        losses(model, 1, 1)
    assert loss_of_the_first_draw() < 0.9 * before


def test_each_sample_has_its_own_timestep_by_default(options):
    x0 = torch.zeros(16, 3, 2, 2)
    time, noise = build(options)._draw(x0, 5)
    assert len(time.unique()) > 8 and len(noise[:, 0, 0, 0].unique()) == 16
    one, _ = build(options, timestep_sampling="batch")._draw(x0, 5)
    assert one.shape == (16,) and one.unique().tolist() == [time[0].item()]


def test_timesteps_are_drawn_by_weight(options):
    visited = build(options).diffusion.sampler().timesteps.tolist()  # 4 of 100

    def drawn(weights: dict[str, float] | None) -> list[int]:
        options["train"]["timestep_weighting"] = weights
        return build(options)._draw(torch.zeros(400, 1, 1, 1), 5)[0].tolist()

    assert set(drawn({"sampler": 1})) == set(visited)
    assert drawn({"uniform": 2, "sampler": 0}) == drawn({"uniform": 1}) == drawn(None)
    share = sum(time in visited for time in drawn({"uniform": 1, "sampler": 3})) / 400
    assert abs(share - (0.75 + 0.25 * 4 / 100)) < 4 * (0.25 * 0.75 / 400) ** 0.5  # four standard deviations


def test_uniform_noise_levels_lie_between_those_of_neighbouring_timesteps(options):
    """As SR3 trains: sqrt(abar) is uniform between sqrt(abar_t) and sqrt(abar_t-1), which is 1 before t = 0."""
    options["network_g"], given, count = SR3, [], 64
    model = build(options, time_input="noise_level", noise_level_sampling="uniform")
    model.net_g.register_forward_pre_hook(lambda network, inputs: given.extend(inputs))
    model.feed_data(batch(count))
    model.optimize_parameters(1)
    x_t, _, level = given
    time, noise = model._draw(model.gt, 1)
    levels = torch.cat([torch.ones(1), model.diffusion.alphas_cumprod.sqrt()])
    below, above = levels[time + 1], levels[time]
    rounding = 1e-6  # of float32 below 1
    assert (below - rounding <= level).all() and (level <= above + rounding).all()
    mean = ((level - below) / (above - below)).mean()
    assert abs(mean - 0.5) < 4 / (12 * count) ** 0.5  # four standard deviations
    signal = level[:, None, None, None]
    torch.testing.assert_close(x_t, signal * model.gt + (1 - signal**2).sqrt() * noise)


def test_a_batch_with_one_timestep_has_one_noise_level(options):
    options["network_g"] = SR3
    model = build(options, time_input="noise_level", noise_level_sampling="uniform", timestep_sampling="batch")
    assert len(model._draw_between(torch.zeros(8, 3, 2, 2), 5).unique()) == 1


def test_random_numbers_depend_on_seed_iteration_and_position_not_on_the_number_of_processes(options):
    whole_time, whole_noise = build(options)._draw(torch.zeros(4, 3, 2, 2), 5)
    for rank in range(2):
        time, noise = build(options, world_size=2, rank=rank)._draw(torch.zeros(2, 3, 2, 2), 5)
        assert torch.equal(time, whole_time[rank::2]) and torch.equal(noise, whole_noise[rank::2])
    assert not torch.equal(build(options)._draw(torch.zeros(4, 3, 2, 2), 6)[1], whole_noise)


def test_ema_averages_parameters_and_buffers(options):
    options["network_g"].update(binarizer="bnn", rescale="pixelshuffle", fusion="concat", tar=False, taa=False)
    model = build(options)
    before = {name: t.clone() for name, t in model.net_g_ema.state_dict().items()}
    losses(model, 1, 1)
    now = model.net_g.state_dict()
    for name, average in model.net_g_ema.state_dict().items():
        expected = (before[name] + now[name]) / 2 if average.is_floating_point() else now[name]
        torch.testing.assert_close(average, expected)
    statistics = [name for name in now if name.endswith("running_mean")]
    assert statistics and all(not torch.equal(before[name], now[name]) for name in statistics)


def test_training_progress_reaches_the_network(options):
    options["network_g"].update(binarizer="irnet", rescale="pixelshuffle", fusion="concat", tar=False, taa=False)
    model = build(options)
    losses(model, 26, 26)
    assert {t.item() for name, t in model.net_g.named_buffers() if name.endswith("progress")} == {0.25}


def test_a_run_that_is_stopped_and_resumed_goes_on_with_the_same_losses(options, tmp_path):
    whole = losses(build(options), 1, 6)
    first = build(options)
    assert losses(first, 1, 3) == whole[:3]
    first.save(epoch=0, current_iter=3)
    state = torch.load(tmp_path / "3.state")
    options["path"]["pretrain_network_g"] = str(tmp_path / "net_g_3.pth")
    second = build(options)
    second.resume_training(state)
    assert losses(second, 4, 6) == whole[3:]


def test_ema_is_saved_and_preferred_in_tests(options, tmp_path):
    model = build(options)
    losses(model, 1, 3)
    lq = torch.rand(1, 3, 6, 6)
    expected = super_resolve(model, lq)
    model.save(epoch=0, current_iter=3)
    options["path"]["pretrain_network_g"] = str(tmp_path / "net_g_3.pth")
    assert torch.equal(super_resolve(build(options, is_train=False), lq), expected)
    options["path"]["param_key_g"] = "params"
    assert not torch.equal(super_resolve(build(options, is_train=False), lq), expected)


def test_a_checkpoint_of_another_size_is_refused(options, tmp_path):
    wide = deepcopy(options)
    wide["network_g"]["inner_channel"] = 16
    build(wide).save(epoch=0, current_iter=1)
    options["path"]["pretrain_network_g"] = str(tmp_path / "net_g_1.pth")
    with pytest.raises(InputError, match=r"which differs in \d+ places; first: size mismatch"):
        build(options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diffuse": "noise"}, "diffuse to be one of image, residual"),
        ({"timestep_sampling": "epoch"}, "timestep_sampling to be one of sample, batch, or ~"),
        ({"time_input": "noise_level"}, "dynamic_group: 1 with time_input: noise_level, got 3"),
        ({"time_input": "sigma"}, "time_input to be one of timestep, noise_level"),
        ({"residual_scale": "two"}, "residual_scale to be a number"),
        ({"residual_scale": 0}, "residual_scale other than 0"),
        ({"data_range": 1}, "data_range to be two numbers"),
        ({"beta_schedule": {"n_timestep": 50}}, "total_step and beta_schedule: n_timestep to be equal, got 100 and 50"),
        ({"train": {"timestep_weighting": {"late": 1}}}, "unknown key 'late' in train: timestep_weighting:"),
        ({"train": {"timestep_weighting": {"uniform": 0}}}, "a weight above 0 in train: timestep_weighting"),
        ({"train": {"timestep_weighting": {"sampler": "all"}}}, "sampler to be a number of at least 0, got 'all'"),
        ({"train": {"timestep_weighting": 3}}, "`train: timestep_weighting:` to hold keys of its own, or ~, got 3"),
        ({"train": {"perceptual_opt": {}, "pixel_opt": None}}, "expected a loss in train: pixel_opt"),
    ],
)
def test_contradicting_options_are_refused(changes, message, options):
    with pytest.raises(InputError, match=message):
        build(options, **changes)


def test_the_default_of_timestep_groups_does_not_go_with_noise_levels_either(options):
    del options["network_g"]["dynamic_group"]
    with pytest.raises(InputError, match="dynamic_group: 1 with time_input: noise_level, got 5"):
        build(options, time_input="noise_level")
    options["network_g"]["dynamic_group"] = 1
    assert np.isfinite(losses(build(options, time_input="noise_level"), 1, 1)).all()


@pytest.mark.parametrize("diffuse", ["image", "residual"])
def test_the_image_is_recovered_from_the_diffusion_target(options, diffuse):
    options |= dict(diffuse=diffuse, residual_scale=3, data_range=[-1, 1])
    task = SuperResolution(DiffusionOptions.part_of(options))
    assert task.normalize(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1.0, -0.5, 1.0]
    gt, condition = torch.rand(2, 1, 3, 4, 4)
    x0 = task.to_x0(task.normalize(gt), task.normalize(condition))
    torch.testing.assert_close(x0, 6 * (gt - condition) if diffuse == "residual" else 2 * gt - 1)
    torch.testing.assert_close(task.denormalize(task.to_image(x0, task.normalize(condition))), gt)


def test_sr3_trains_and_tests_under_the_same_model(options):
    options["network_g"] = SR3
    model = build(options, time_input="noise_level")
    assert all(np.isfinite(losses(model, 1, 2)))
    assert super_resolve(model, torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)


# what training begins with, and what a test loads


def test_a_test_takes_the_set_of_a_packed_file_that_its_options_name(options, tiny_network, tmp_path):
    from bidiffsr_arch.packed import Description, pack, save_packed

    other = deepcopy(tiny_network)
    with torch.no_grad():
        other.downs[0].weight.add_(1)
    said = Description(options["network_g"], scale=2)
    file = tmp_path / "both.safetensors"
    save_packed(pack(tiny_network), file, said, sets={"perceptual": (pack(other), said)})
    name = "downs.0.weight"
    for key, network in ((None, tiny_network), ("fidelity", tiny_network), ("perceptual", other)):
        options["path"] = dict(pretrain_network_g=str(file)) | ({"param_key_g": key} if key else {})
        model = build(options, is_train=False)
        assert torch.equal(model.packed.state[name], network.state_dict()[name])
    options["path"]["param_key_g"] = "perceptul"
    with pytest.raises(InputError, match="to be one of fidelity, perceptual, got 'perceptul'"):
        build(options, is_train=False)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_training_begins_with_a_network_of_fewer_timestep_groups(options, tmp_path, groups, caplog, monkeypatch):
    """Its banks are repeated, so that it computes the same at every timestep."""
    options["network_g"]["dynamic_group"] = groups
    first = build(options)
    for _ in range(3):
        first.feed_data(batch())
        first.optimize_parameters(1)
    first.save_network(first.net_g, "net_g", -1)
    options["network_g"]["dynamic_group"] = 4
    options["path"]["pretrain_network_g"] = str(tmp_path / "net_g_latest.pth")
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    caplog.set_level("INFO", logger=get_root_logger().name)
    second = build(options)
    time = torch.tensor([0, 24, 25, 49, 50, 74, 75, 99])
    x, condition = torch.rand(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    networks = [model.get_bare_model(model.net_g).eval() for model in (first, second)]
    with torch.no_grad():
        expected, result = (network(x, condition, time) for network in networks)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert (f"banks of {groups} timestep groups are repeated for 4" in caplog.text) == (groups < 4)
    second.feed_data(batch())
    second.optimize_parameters(1)


@pytest.mark.parametrize(("before", "after", "is_train"), [(2, 3, True), (3, 1, True), (1, 3, False)])
def test_other_timestep_groups_are_another_network(options, tmp_path, before, after, is_train):
    options["network_g"]["dynamic_group"] = before
    model = build(options)
    model.save_network(model.net_g, "net_g", -1)
    options["network_g"]["dynamic_group"] = after
    options["path"] |= dict(pretrain_network_g=str(tmp_path / "net_g_latest.pth"), strict_load_g=True)
    with pytest.raises(InputError, match="which differs in"):
        build(options, is_train=is_train)


def test_two_stages_activations_first_then_weights(options, tmp_path):
    """The first trains with real weights and cannot be packed; the second begins with them and can."""
    from bidiffsr_arch.packed import pack

    options["network_g"]["binarize"] = "activations"
    first = build(options)
    for iteration in (1, 2, 3):
        first.feed_data(batch())
        first.optimize_parameters(iteration)
    with pytest.raises(InputError, match=r"expected 1-bit weights to pack, got real ones in .*train the second stage"):
        pack(first.net_g)
    first.save_network(first.net_g, "net_g", -1)
    options["network_g"]["binarize"] = "all"
    options["path"] |= dict(pretrain_network_g=str(tmp_path / "net_g_latest.pth"), strict_load_g=True)
    second = build(options)
    assert all(torch.equal(*pair) for pair in zip(first.net_g.parameters(), second.net_g.parameters(), strict=True))
    second.feed_data(batch())
    second.optimize_parameters(1)
    pack(second.net_g)
    options["network_g"]["binarize"] = "weights"
    with pytest.raises(InputError, match="expected binarize to be one of all, activations, got 'weights'"):
        build(options)

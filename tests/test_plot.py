"""`basicsr plot`: each figure is drawn from a tiny network, with titles, axes and units."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.plots.curves import curves, read_series
from bidiffsr_arch.upscale import Upscaler

pytest.importorskip("matplotlib")

LOG = """\
2026-01-01 00:00:00,000 INFO: [tiny..][epoch:  0, iter:   1,000, lr:(1.000e-03,)] [eta: 0:01, time (data): 1.0 (0.1)] \
l_pix: 5.0000e-02
2026-01-01 00:00:01,000 INFO: Validation Set5
\t # psnr: 30.5000\tBest: 30.5000 @ 1000 iter
\t # lpips: n/a
2026-01-01 00:00:02,000 INFO: [tiny..][epoch:  0, iter:   2,000, lr:(5.000e-04,)] [eta: 0:01, time (data): 1.0 (0.1)] \
l_pix: 4.0000e-02
2026-01-01 00:00:03,000 INFO: Validation Set5
\t # psnr: 30.2500\tBest: 30.5000 @ 1000 iter
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: dict[str, Any]) -> Path:
    """A current directory with net.pth and net.yml, a photograph and a log."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"params": BIDiffSRUNet(**tiny_options).state_dict()}, "net.pth")
    options = dict(
        name="tiny",
        model_type="BIDiffSRModel",
        scale=2,
        num_gpu=0,
        network_g=dict(type="BIDiffSRUNet", **tiny_options),
        beta_schedule=dict(n_timestep=100, num_inference_steps=3),
        datasets=dict(test_1=dict(name="images", type="SingleImageDataset", dataroot_lq="in")),
        path=dict(pretrain_network_g=None),
        val=dict(suffix=None),
    )
    Path("net.yml").write_text(yaml.safe_dump(options))
    Path("photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(f"photos/{name}.png")
    Path("train_tiny.log").write_text(LOG)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        "activations photos/a.png --weights net.pth",
        "activations photos/a.png --weights net.pth --layer mid.0.res_block.block1.conv --crop 24",
        "ranges photos/a.png --weights net.pth --layer ups.2",
        "biases --weights net.pth",
        "trajectory photos/a.png --weights net.pth --sampler HeunDiscrete --steps 2",
        "strip photos --weights net.pth --crop 24 --steps 1",
        "curves train_tiny.log",
        "curves .",
    ],
)
def test_a_figure_is_drawn(workplace, arguments):
    assert main(["plot", *arguments.split(), "-o", "figure.png"]) == 0
    with Image.open("figure.png") as figure:
        pixels = np.asarray(figure.convert("L"))
    assert min(pixels.shape) > 100 and pixels.std() > 5


def test_a_trajectory_has_the_timesteps_that_a_sampler_visits_twice(workplace):
    from bidiffsr_arch.plots.images import trajectory

    upscaler = Upscaler.from_file("net.pth", sampler="HeunDiscrete", steps=2)
    figure = trajectory(upscaler, np.zeros((48, 48, 3), np.uint8))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 5 and titles[1] == titles[2] and titles[3:] == ["result", "HR"]


def test_curves_have_the_values_of_the_log(workplace):
    series = read_series(Path("train_tiny.log"))
    assert series["l_pix"] == [(1000, 0.05), (2000, 0.04)]
    assert series["psnr on Set5"] == [(1000, 30.5), (2000, 30.25)]
    assert set(series) == {"l_pix", "psnr on Set5", "learning rate"}
    panels = curves(series, "tiny").axes
    assert [axes.get_ylabel() for axes in panels] == ["loss (no unit)", "PSNR (dB)"]
    assert all(axes.get_xlabel() == "iteration" for axes in panels)


def test_tensorboard_gives_the_same_curves(workplace):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter("events") as writer:
        for iteration, loss, psnr in ((1000, 0.05, 30.5), (2000, 0.04, 30.25)):
            writer.add_scalar("losses/l_pix", loss, iteration)
            writer.add_scalar("metrics/Set5/psnr", psnr, iteration)
    series, logged = read_series(Path("events")), read_series(Path("train_tiny.log"))
    for name in ("l_pix", "psnr on Set5"):
        np.testing.assert_allclose(series[name], logged[name], rtol=1e-6)  # TensorBoard keeps float32


def test_a_resumed_training_is_one_curve(workplace):
    Path("train_tiny_2.log").write_text(
        LOG.replace("iter:   2,000", "iter:   3,000").replace("5.0000e-02", "7.0000e-02")
    )
    assert read_series(Path())["l_pix"] == [(1000, 0.07), (2000, 0.04), (3000, 0.04)]


def test_the_biases_that_are_drawn_are_the_layers(workplace):
    from bidiffsr_arch.networks import load_weights
    from bidiffsr_arch.plots.layers import timestep_biases

    network = load_weights("net.pth").network
    layer = network.get_submodule("mid.0.res_block.block1.conv")
    with torch.no_grad():
        layer.TaR.bias.copy_(torch.arange(layer.TaR.bias.numel()).view_as(layer.TaR.bias))
    figure = timestep_biases(network, "mid.0.res_block.block1.conv")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), layer.TaR.bias.detach())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("biases --weights net.pth --layer conv -o f.png", "expected --layer to be one of .*mid.0"),
        ("biases --weights net.pth -o f.jpg", "an output that ends in .png"),
        ("biases --weights net.pth -o photos/a.png", "photos/a.png exists"),
        ("curves absent -o f.png", "a log file or a folder at absent"),
        ("curves photos -o f.png", "found no curve"),
        ("activations photos/a.png --weights net.pth --crop 5 -o f.png", "at least 24x24"),
        ("activations absent.png --weights net.pth -o f.png", "at absent.png, found no such file"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(workplace, arguments, message, capsys):

    assert main(["plot", *arguments.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert not Path("f.png").exists()


def test_a_network_without_biases_is_refused(tiny_options):
    from bidiffsr_arch.plots.layers import timestep_biases

    with pytest.raises(InputError, match="whose binarizer has none"):
        timestep_biases(BIDiffSRUNet(**tiny_options, binarizer="bnn", tar=False, taa=False))

"""Networks as ONNX files and programs of torch.export: the same numbers for all sizes and timestep groups."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bidiffsr_arch import export as exporting
from bidiffsr_arch.archs import BBCUNet, BIDiffSRUNet, SR3UNet
from bidiffsr_arch.binary import timestep_group
from bidiffsr_arch.cli import main
from bidiffsr_arch.cli.export import default_name
from bidiffsr_arch.description import describe
from bidiffsr_arch.errors import CheckFailed, InputError
from bidiffsr_arch.export import DIRECT_INPUTS, INPUTS, export, images, largest_difference, times
from bidiffsr_arch.networks import Weights
from bidiffsr_arch.packed import Description, pack, save_packed
from bidiffsr_arch.pretrained import save_pretrained

pytestmark = pytest.mark.export
MISSING = "onnxruntime is not installed: make test-export"
needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason=MISSING)
KINDS = ["pt2", pytest.param("onnx", marks=needs_onnx)]

SCHEDULE = dict(n_timestep=100, num_inference_steps=3)
DIRECT = dict(num_feat=8, num_block=1, upscale=2)
METHODS = {"bnn": "split", "dorefa": "add", "xnor": "concat", "irnet": "cs", "reactnet": "cs", "bbcu": "cs"}
# Beside the tiny network: what is computed in another way by networks of other options.
NETWORKS = {
    "one group": (BIDiffSRUNet, dict(tar=False, taa=False, patch_size=2, input_scale=2.0)),
    "rescale, fusion": (BIDiffSRUNet, dict(rescale="pixelshuffle", fusion="concat", mid_attn=False)),
    "SR3": (SR3UNet, {}),
    **{
        f"{binarizer}, {fusion}": (BIDiffSRUNet, dict(binarizer=binarizer, fusion=fusion, tar=False, taa=False))
        for binarizer, fusion in METHODS.items()
    },
}
SR3_OPTIONS = ("inner_channel", "norm_groups", "channel_mults", "res_blocks", "dropout", "image_size")


def weights_of(network: nn.Module, **options) -> Weights:
    network_g = {"type": type(network).__name__} | getattr(network, "arguments", {})
    return Weights(network.eval(), dict(scale=2, network_g=network_g) | options, getattr(network, "multiple", 1))


def trained(network: nn.Module) -> nn.Module:
    """Groups that differ from each other, and means of batch norm that are not 0, as after training.

    With means of 0, whole-numbered sums of 0 are exact in torch only; in onnxruntime rounding decides on their signs.
    """
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.add_(0.3 * torch.randn_like(module.running_mean))
        for parameter in network.parameters():
            if parameter.ndim == 2 and len(parameter) == getattr(network, "dynamic_group", 0):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.fixture
def weights(tiny_network: BIDiffSRUNet) -> Weights:
    return weights_of(trained(tiny_network), beta_schedule=SCHEDULE, diffuse="residual")


def opened(path: Path):
    """The file as its runtime opens it, and the description in it."""
    if path.suffix == ".pt2":
        files = {"description.json": ""}
        return torch.export.load(path, extra_files=files).module(), json.loads(files["description.json"])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = DIRECT_INPUTS if len(session.get_inputs()) == 1 else INPUTS

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return call, json.loads(session.get_modelmeta().custom_metadata_map["description"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_computes_what_the_network_does(weights, kind, tmp_path):
    path = tmp_path / f"net.{kind}"
    assert export(weights, path, kind) <= 1e-4
    call, description = opened(path)
    assert description == json.loads(json.dumps(describe(weights.options)))
    assert largest_difference(weights, call) <= 1e-4
    for size, batch in (((2, 2), 1), ((3, 7), 3), ((8, 4), 2)):
        inputs = images(weights, size, torch.tensor([0.0, 50, 99])[:batch], seed=size[1])
        height, width = (weights.multiple * length for length in size)
        assert call(*inputs).shape == (batch, 3, height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_a_direct_network(kind, tmp_path):
    torch.manual_seed(0)
    weights = weights_of(BBCUNet(**DIRECT))
    assert export(weights, tmp_path / f"net.{kind}", kind) <= 1e-4
    call, description = opened(tmp_path / f"net.{kind}")
    assert "beta_schedule" not in description and call(torch.rand(2, 3, 5, 9)).shape == (2, 3, 10, 18)


@needs_onnx
@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks(tiny_options, name, tmp_path):
    """As ONNX, which begins with the program that a ``.pt2`` holds."""
    architecture, changes = NETWORKS[name]
    options = tiny_options | changes
    if architecture is SR3UNet:
        options = {name: options[name] for name in SR3_OPTIONS}
    torch.manual_seed(0)
    how = dict(time_input="noise_level") if architecture is SR3UNet else {}
    weights = weights_of(trained(architecture(**options)), beta_schedule=SCHEDULE, **how)
    assert export(weights, tmp_path / "net.onnx") <= 1e-4


def test_every_timestep_group_is_compared(weights):
    """A file in which one group has the biases of another does not pass."""
    network = weights.network

    def wrong(x_t: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return network(x_t, condition, time.clamp(max=66))  # no last group

    with torch.no_grad():
        assert largest_difference(weights, network) == 0
        assert largest_difference(weights, wrong) > 1e-4


@given(steps=st.integers(1, 3000), groups=st.integers(1, 12))
def test_times_reach_every_group(steps, groups):
    network = nn.Identity()
    network.total_step, network.dynamic_group = steps, groups
    chosen = times(Weights(network, {}, 1))
    assert chosen.min() >= 0 and chosen.max() <= steps - 1
    all_groups = timestep_group(torch.arange(steps), steps, groups)
    assert set(timestep_group(chosen, steps, groups).tolist()) == set(all_groups.tolist())


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    torch.manual_seed(0)
    form = exporting.FORMATS["pt2"]
    broken = replace(form, open=lambda content: lambda image: torch.zeros(()))
    monkeypatch.setitem(exporting.FORMATS, "pt2", broken)
    with pytest.raises(CheckFailed, match=r"torch.export differs from the network by \d"):
        export(weights_of(BBCUNet(**DIRECT)), tmp_path / "net.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_signs_are_kept_away_from_rounding(weights):
    """The images of the check are others than the first ones, where those come close to zero."""
    one = torch.tensor([5.0])
    inputs = exporting._without_close_signs(weights, (2, 3), one)
    with torch.no_grad(), exporting._smallest_sign_argument(weights.network) as smallest:
        weights.network(*inputs)
    assert len(smallest) == sum(isinstance(m, exporting.BinaryWeightConv2d) for m in weights.network.modules())
    assert min(smallest) >= exporting.MARGIN


@needs_onnx
def test_the_command(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_pretrained(weights.network, "net", weights.options)
    assert main(["export", "net", "--format", "onnx"]) == 0
    said = capsys.readouterr().out
    assert "wrote net.onnx" in said and "multiples of 2" in said
    assert "checked with onnxruntime: 3 sizes, 6 timesteps, largest difference" in said
    assert main(["export", "net"]) == 2
    assert "net.onnx exists; choose another name or add --overwrite" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "net/model.safetensors", "-o", "net.onnx", "--overwrite"]) == 0
    assert "not checked: onnxruntime is not installed" in capsys.readouterr().out


def test_mistakes_are_one_line(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_pretrained(weights.network, "net", weights.options)
    network_g = weights.options["network_g"]
    given = Description(network_g=network_g, scale=2, beta_schedule=SCHEDULE, source="net_g_7.pth")
    save_packed(pack(weights.network, "torch"), "packed.safetensors", given)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for words, expected in {
        "packed.safetensors": "expected a float network, got a packed one; export what it was packed from, net_g_7.pth",
        "net": "expected the package onnx, which is not installed; install the extra export: pip install '.[export]'",
        "net --format pt2 -o net.onnx": "expected a name that ends in .pt2, got net.onnx",
        "none.pth": "expected weights at none.pth, found no such file",
    }.items():
        assert main(["export", *words.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    assert not list(tmp_path.glob("*.onnx"))


def test_networks_that_cannot_be_traced_are_one_line(tmp_path):
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.mean() > 0 else -x

    with pytest.raises(InputError, match=r"Branches cannot be traced by torch\.export: ") as caught:
        export(weights_of(Branches()), tmp_path / "net.pt2", "pt2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("experiments/x/models/net_g_latest.pth", "net_g_latest"),
        ("folder/net_v1.5/", "net_v1.5"),
        ("hf://OWNER/NAME@v1", "NAME"),
        ("hf://OWNER/NAME@v1/other.safetensors", "NAME"),
    ],
)
def test_names_of_files(weights, name):
    assert default_name(weights) == name

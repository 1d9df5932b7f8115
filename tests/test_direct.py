"""A network without diffusion: dry run, training with SRModel, test, cost, packing, upscaling."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from small_run import basicsr, log_of, losses

import bidiffsr_arch
from bidiffsr_arch.archs import BBCUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, is_direct
from bidiffsr_arch.packed import Description, PackedBBCUNet, pack, save_packed
from bidiffsr_arch.training.packed_networks import packed_for_test
from bidiffsr_arch.upscale.direct import DirectNetwork

NETWORK = dict(num_in_ch=3, num_out_ch=3, num_feat=8, num_block=1, upscale=2)
WEIGHTS = "experiments/direct/models/net_g_latest.pth"


@pytest.fixture
def options(run_options):
    run_options |= dict(name="direct", model_type="SRModel", network_g=dict(type="BBCUNet", **NETWORK))
    del run_options["beta_schedule"], run_options["val"]["metrics"]["lpips"]
    del run_options["val"]["metrics"]["params"], run_options["val"]["metrics"]["ops"]
    return run_options


def test_the_same_commands_serve_a_direct_network(workplace, options, capsys):
    assert basicsr("train", options, "--dry-run") == 0
    assert "G OPs at 8x8" in capsys.readouterr().out
    assert basicsr("train", options) == 0
    trained = log_of("experiments/direct")
    assert len(losses(trained)) == 4 and re.search(r"# psnr: \d+\.\d+", trained)

    psnr = float(re.findall(r"# psnr: (\S+)", trained)[-1])
    options |= dict(datasets=dict(test_1=options["datasets"]["val"]), name="tested")
    options["expected"] = dict(Set5=dict(psnr=dict(value=psnr, tolerance=1e-3)))
    options["path"] |= dict(pretrain_network_g=WEIGHTS, param_key_g="params_ema")
    assert basicsr("test", options, "--check") == 0
    assert re.search(r"Set5 +psnr .* ok", capsys.readouterr().out)
    assert main(["cost", "-opt", "options.yml", "--input-size", "8", "8"]) == 0
    assert "counted for an input of 1x3x8x8" in capsys.readouterr().out

    assert main(["pack", WEIGHTS, "-opt", "options.yml", "-o", "direct.safetensors"]) == 0
    for weights in ([WEIGHTS, "-opt", "options.yml"], ["direct.safetensors"]):
        assert main(["upscale", "data/LR", "-o", f"large{len(weights)}", "--weights", *weights, "--quiet"]) == 0
    for name in ("0x2.png", "1x2.png", "2x2.png"):
        ours, packed = (np.asarray(Image.open(f"large{n}/{name}")).astype(int) for n in (3, 1))
        assert ours.shape == (24, 20, 3) and np.abs(ours - packed).max() <= 1
    assert main(["upscale", "data/LR", "-o", "x", "--weights", "direct.safetensors", "--steps", "3"]) == 2
    assert "no sampler and no steps for a network without diffusion, got steps 3" in capsys.readouterr().err

    options["path"]["pretrain_network_g"] = "direct.safetensors"
    assert basicsr("test", options, "--check") == 0
    assert re.search(r"Set5 +psnr .* ok", capsys.readouterr().out)
    assert "Loading packed network from direct.safetensors" in log_of("results/tested")
    options["network_g"]["num_feat"] = 16
    assert basicsr("test", options) == 2
    assert "expected num_feat: 8, as direct.safetensors was packed, got 16" in capsys.readouterr().err


def test_a_packed_file_is_compared_with_a_constructor_that_takes_any_arguments(tmp_path):
    class Open(BBCUNet):
        def __init__(self, num_feat: int = 8, activation: type = torch.nn.GELU, **others: int) -> None:
            super().__init__(num_feat=num_feat, **others)

    arguments = dict(num_feat=8, num_block=1, upscale=2)
    network, file = BBCUNet(**arguments), tmp_path / "net.safetensors"
    save_packed(pack(network, "torch"), file, Description({"type": "BBCUNet"} | arguments, scale=2))
    model = SimpleNamespace(is_train=False, opt={"scale": 2, "network_g": {"type": "BBCUNet"} | arguments})
    assert packed_for_test(model, Open(**arguments), str(file), None).out_channels == 3
    model.opt["network_g"]["num_block"] = 2
    with pytest.raises(InputError, match=r"expected num_block: 1, as .* was packed, got 2"):
        packed_for_test(model, Open(**arguments), str(file), None)


def test_srmodel_validates_with_its_packed_network(workplace, options, monkeypatch):
    """With `val: packed`, in training too, with the same PSNR; afterwards the float network is restored."""
    packed_calls = []
    run = PackedBBCUNet.forward
    monkeypatch.setattr(PackedBBCUNet, "forward", lambda *args: packed_calls.append(1) or run(*args))
    options["val"]["packed"] = True
    assert basicsr("train", options) == 0
    trained = log_of("experiments/direct")
    assert len(packed_calls) == 3 and len(losses(trained)) == 4
    options["val"]["packed"] = False
    options |= dict(datasets=dict(test_1=options["datasets"]["val"]), name="tested")
    options["path"] |= dict(pretrain_network_g=WEIGHTS, param_key_g="params_ema")
    assert basicsr("test", options) == 0
    packed, plain = (float(re.findall(r"# psnr: ([\d.]+)", log)[-1]) for log in (trained, log_of("results/tested")))
    assert abs(packed - plain) < 1e-3 and len(packed_calls) == 3


def test_srmodel_tests_float_safetensors(workplace, options, capsys):
    torch.manual_seed(0)
    save_file(BBCUNet(**NETWORK).state_dict(), "direct.safetensors")
    options |= dict(datasets=dict(test_1=options["datasets"]["val"]), name="tested")
    options["path"] |= dict(pretrain_network_g="direct.safetensors", strict_load_g=True)
    assert basicsr("test", options) == 0
    options["network_g"]["num_feat"] = 16
    assert basicsr("test", options) == 2
    assert "expected weights of the network in network_g, got direct.safetensors" in capsys.readouterr().err


def test_val_packed_needs_a_packer(workplace, options, capsys):
    options["network_g"] = dict(type="MSRResNet", num_feat=8, num_block=1, upscale=2)
    options["val"]["packed"] = True
    assert basicsr("train", options) == 2
    assert "val: packed: expected a network to pack that is one of" in capsys.readouterr().err


def test_the_result_is_the_networks_one_call():
    torch.manual_seed(0)
    network = BBCUNet(**NETWORK).eval()
    upscaler = bidiffsr_arch.Upscaler(Weights(network, {"scale": 2}, 1), tile=None)
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    with torch.no_grad():
        whole = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255).clamp(0, 1)
    expected = (whole[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    assert upscaler.calls(9, 7) == 1
    np.testing.assert_array_equal(upscaler(image), expected)
    with pytest.raises(InputError, match="got sampler DDIM"):
        bidiffsr_arch.Upscaler(Weights(network, {"scale": 2}, 1), sampler="DDIM")
    with pytest.raises(InputError, match="for beta_schedule, got BBCUNet"):
        bidiffsr_arch.Upscaler(Weights(network, {"scale": 2, "beta_schedule": {"n_timestep": 10}}, 1))


@pytest.mark.parametrize(("height", "width"), [(5, 3), (40, 33), (64, 64)])
def test_tiles_are_blended_without_a_seam(height, width):
    """A network whose receptive field is within overlap / 4 gives the same result with tiles."""
    calls = []

    def network(x: torch.Tensor) -> torch.Tensor:
        blurred = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return F.interpolate(blurred, scale_factor=2, mode="nearest")

    tiled = DirectNetwork(network, 2, 32, 16, on_tile=lambda: calls.append(1))
    image = torch.rand(1, 3, height, width)
    torch.testing.assert_close(tiled(image), network(image))
    rows, columns = tiled.grid(height, width)
    assert len(calls) == len(rows) * len(columns) and (len(calls) > 1) == (max(height, width) > 16)


def test_which_networks_are_direct(tiny_network):
    assert is_direct(BBCUNet(**NETWORK)) and not is_direct(tiny_network)
    assert not is_direct(lambda *arguments: arguments[0])
    assert not Weights(tiny_network, {"scale": 2}, 2).is_direct  # its schedule is the default one

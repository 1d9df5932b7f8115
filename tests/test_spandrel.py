"""This package's networks in spandrel: detected by their tensors, loaded, and called."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("spandrel", reason="spandrel is not installed: make test-hub")

import spandrel

import bidiffsr_arch.spandrel
from bidiffsr_arch import Upscaler
from bidiffsr_arch.archs import BBCUNet, BIDiffSRUNet
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.packed import pack
from bidiffsr_arch.pretrained import save_pretrained
from bidiffsr_arch.weights import shipped_weights

pytestmark = pytest.mark.hub

DOCS = Path(__file__).parents[1] / "docs" / "spandrel.md"
OPTIONS = dict(scale=2, diffuse="residual", beta_schedule=dict(n_timestep=100, num_inference_steps=3))


@pytest.fixture(autouse=True)
def installed() -> None:
    for _ in range(2):
        bidiffsr_arch.spandrel.install()


@pytest.fixture(params=["float", "packed"])
def file(request, tiny_network: BIDiffSRUNet, tmp_path: Path) -> Path:
    network = pack(tiny_network, "torch") if request.param == "packed" else tiny_network
    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    return save_pretrained(network, tmp_path / "net", OPTIONS | {"network_g": network_g}) / "model.safetensors"


def test_files_are_detected_and_give_the_upscalers_images(file):
    loader = spandrel.ModelLoader()
    image = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    expected = Upscaler.from_file(file).sample(image)
    for model in (loader.load_from_file(file), loader.load_from_state_dict(load_file(file))):
        assert isinstance(model, spandrel.ImageModelDescriptor) and model.architecture.id == "BIDiffSR"
        assert (model.scale, model.purpose, model.input_channels, model.output_channels) == (2, "SR", 3, 3)
        assert model.tiling is spandrel.ModelTiling.INTERNAL and "3 steps" in model.tags
        for _ in range(2):  # the seed is fixed
            assert torch.equal(model.eval()(image), expected)
        assert model.to("cpu").device.type == "cpu"
        with pytest.raises(spandrel.UnsupportedDtypeError):
            model.half()
    batch = torch.cat([image, image.flip(-1)])  # ComfyUI hands on batches
    assert torch.equal(model(batch)[:1], expected)


@pytest.mark.parametrize("packed", [False, True])
def test_a_network_without_diffusion(tmp_path, packed):
    torch.manual_seed(0)
    arguments = dict(num_feat=8, num_block=1, upscale=4)
    network = BBCUNet(**arguments).eval()
    options = {"scale": 4, "network_g": {"type": "BBCUNet"} | arguments}
    folder = save_pretrained(pack(network, "torch") if packed else network, tmp_path / "net", options)
    model = spandrel.ModelLoader().load_from_file(folder / "model.safetensors")
    assert (model.scale, model.tags) == (4, ["1-bit" if packed else "float"])
    image = torch.rand(1, 3, 9, 12)
    assert torch.equal(model(image), Upscaler.from_file(folder).sample(image))
    assert packed or torch.equal(model(image), network(image).clamp(0, 1))


# What ComfyUI does: it runs the module, looks at NODE_CLASS_MAPPINGS, and its two nodes load a state dict, measure the
# model, move it to a device, upscale tiles of batches with channels last, and move it back.
COMFYUI = """
import sys
from importlib.util import module_from_spec, spec_from_file_location

import torch
from safetensors.torch import load_file

spec = spec_from_file_location("bidiffsr", sys.argv[1])
module = sys.modules["bidiffsr"] = module_from_spec(spec)
spec.loader.exec_module(module)
assert module.NODE_CLASS_MAPPINGS == {}

from spandrel import ImageModelDescriptor, ModelLoader

model = ModelLoader().load_from_state_dict(load_file(sys.argv[2])).eval()
assert isinstance(model, ImageModelDescriptor)
assert sum(each.nelement() * each.element_size() for each in model.model.state_dict().values()) > 0
model.to(torch.device("cpu"))
images = torch.load(sys.argv[3], weights_only=True)
torch.save(model(images.movedim(-1, -3)).movedim(-3, -1), sys.argv[4])
model.to("cpu")
"""


def test_comfyuis_calls_after_the_module_in_the_docs(file, tmp_path):
    (module,) = re.findall(r"^```python\n(\"\"\"Lets .*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "__init__.py").write_text(module)
    torch.save(torch.rand(2, 9, 12, 3, generator=torch.Generator().manual_seed(0)), tmp_path / "images.pt")
    names = [tmp_path / "__init__.py", file, tmp_path / "images.pt", tmp_path / "large.pt"]
    done = subprocess.run([sys.executable, "-c", COMFYUI, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    large = torch.load(tmp_path / "large.pt", weights_only=True)
    first = torch.load(tmp_path / "images.pt", weights_only=True)[:1].movedim(-1, -3)
    assert torch.equal(large[:1].movedim(-1, -3), Upscaler.from_file(file).sample(first)) and len(large) == 2


def test_files_of_other_packages_are_not_detected(file):
    registry = spandrel.MAIN_REGISTRY
    ours = registry["BIDiffSR"]
    assert registry.architectures("detection")[0] is ours
    tensors = load_file(file)
    assert [support.architecture.id for support in registry if support.detect(tensors)][-1] == "BIDiffSR"
    tensors.pop("bidiffsr.description")
    assert not ours.detect(tensors) and not ours.detect({"conv.weight": torch.zeros(1)})


def test_tensors_that_do_not_fit_their_description_are_refused_in_one_line(file):
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("bias"))
    tensors[name] = tensors[name][:-1].clone()
    with pytest.raises(InputError, match="the state dict") as caught:
        spandrel.ModelLoader().load_from_state_dict(tensors)
    assert "\n" not in str(caught.value)


def by_tiles(model: spandrel.ImageModelDescriptor, image: torch.Tensor, tile: int, overlap: int) -> torch.Tensor:
    """As programs tile that ask no model how: tiles of pixels, blended linearly over their overlap."""
    height, width = image.shape[-2:]
    total = torch.zeros(1, 3, height * model.scale, width * model.scale)
    weights = torch.zeros_like(total[:, :1])
    for top in range(0, max(height - overlap, 1), tile - overlap):
        for left in range(0, max(width - overlap, 1), tile - overlap):
            top, left = min(top, max(height - tile, 0)), min(left, max(width - tile, 0))
            result = model(image[..., top : top + tile, left : left + tile])
            ramps = []
            for length, start, whole in zip(result.shape[-2:], (top, left), (height, width), strict=True):
                place, fade = torch.arange(length) + 0.5, overlap * model.scale
                rise = torch.ones(length) if start == 0 else (place / fade).clamp(max=1)
                fall = torch.ones(length) if start + tile >= whole else ((length - place) / fade).clamp(max=1)
                ramps.append(rise * fall)
            weight = ramps[0][:, None] * ramps[1]
            place = (..., slice(top * model.scale, top * model.scale + result.shape[-2]),
                     slice(left * model.scale, left * model.scale + result.shape[-1]))  # fmt: skip
            total[place] += result * weight
            weights[place] += weight
    return total / weights


def test_tiles_of_other_programs_show_no_seams(tmp_path):
    """The descriptor discourages tiling. With tiles nevertheless, each with its own noise, a trained
    network is within 40 dB of the whole (54.9 measured), and no value is off by more than 1/8 (0.02 measured)."""
    from skimage.data import astronaut

    weights = load_weights(shipped_weights(2))
    save_pretrained(weights.network, tmp_path / "net", weights.options)
    model = spandrel.ModelLoader().load_from_file(tmp_path / "net" / "model.safetensors")
    image = torch.tensor(astronaut()[:96, 180:276]).permute(2, 0, 1)[None] / 255
    whole, tiled = model(image), by_tiles(model, image, 64, 16)
    assert whole.shape == tiled.shape == (1, 3, 192, 192)
    error = (whole - tiled).abs()
    assert -10 * torch.log10((error**2).mean()) > 40 and error.max() < 1 / 8
    assert np.isfinite(tiled).all()

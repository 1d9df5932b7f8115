"""Networks in the Hub's layout: folders, files with descriptions, and a Hub on 127.0.0.1."""

import hashlib
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from child import run_code
from hub_server import hub
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bidiffsr_arch import Upscaler
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.description import TENSOR, describe, from_tensors, modelspec, to_tensor
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.hub import INSTALL, local, model_card
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.packed import Description, pack, save_packed
from bidiffsr_arch.pretrained import save_pretrained

pytestmark = pytest.mark.hub

TRAINED = dict(scale=2, beta_schedule=dict(n_timestep=100, num_inference_steps=3), diffuse="residual")
ABOUT = dict(title="Tiny x2", license="apache-2.0", author="me", data="three images", results={"Set5": {"PSNR": 33.1}})
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture
def folder(tiny_network: BIDiffSRUNet, tmp_path: Path) -> Path:
    tiny_network.save_pretrained(tmp_path / "net", about=ABOUT, **TRAINED)
    return tmp_path / "net"


def header(path: Path) -> dict[str, str]:
    """A file's metadata, a digest of its tensors included; safetensors writes them in any order."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_float_network_makes_a_round_trip(folder, tiny_network):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    network = BIDiffSRUNet.from_pretrained(folder)
    assert describe({"network_g": network.arguments}) == describe({"network_g": tiny_network.arguments})
    assert network.trained["scale"] == 2 and not network.training
    for name, tensor in tiny_network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    network.save_pretrained(folder.parent / "again")  # what it was trained to do is remembered
    for name in ("config.json", "README.md"):
        assert (folder.parent / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert header(folder.parent / "again" / "model.safetensors") == header(folder / "model.safetensors")


def test_upscaling_needs_the_file_or_the_folder_alone(folder, tmp_path):
    expected = Upscaler.from_pretrained(folder, seed=3)(IMAGE)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "model.safetensors").read_bytes())
    for upscaler in (Upscaler.from_file(folder, seed=3), Upscaler.from_file(alone, seed=3)):
        np.testing.assert_array_equal(upscaler(IMAGE), expected)
    packed = Upscaler.from_pretrained(folder, seed=3, packed=True)(IMAGE)
    assert np.abs(packed.astype(int) - expected).mean() < 2


def test_a_packed_network_makes_a_round_trip(tiny_network, tmp_path):
    packed = pack(tiny_network, "torch")
    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    save_pretrained(packed, tmp_path / "net", TRAINED | {"network_g": network_g})
    upscaler = Upscaler.from_file(tmp_path / "net" / "model.safetensors")
    assert upscaler.timesteps == 3
    expected = upscaler(IMAGE)
    np.testing.assert_array_equal(Upscaler.from_pretrained(tmp_path / "net")(IMAGE), expected)
    with pytest.raises(InputError, match=r"expected a BIDiffSRUNet in .*, got a PackedUNet"):
        BIDiffSRUNet.from_pretrained(tmp_path / "net")


def test_a_checkpoint_of_training_needs_no_option_file(tmp_path, options, run_options):
    from bidiffsr_arch.training.bidiffsr_model import BIDiffSRModel

    model = BIDiffSRModel(options)
    model.save_network(model.net_g, "net_g", -1)
    (file,) = tmp_path.glob("net_g_latest.pth")
    weights = load_weights(file)
    assert weights.scale == 2 and weights.options["beta_schedule"]["n_timestep"] == 100
    assert Upscaler.from_file(file)(IMAGE).shape == (16, 16, 3)
    (tmp_path / "other.yml").write_text(json.dumps(run_options | {"scale": 4}))
    with pytest.raises(InputError, match=r"expected weights of x4, as .*other\.yml says, got .*trained for x2"):
        load_weights(file, tmp_path / "other.yml")


@pytest.mark.parametrize("packed", [False, True])
def test_files_have_descriptions_for_all_readers(folder, tiny_network, tmp_path, packed):
    path = folder / "model.safetensors"
    if packed:
        path = tmp_path / "packed.safetensors"
        network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
        save_packed(pack(tiny_network, "torch"), path, Description(network_g=network_g, **TRAINED))
    said = header(path)
    assert said["modelspec.sai_model_spec"] == "1.0.1" and said["modelspec.architecture"] == "bidiffsrunet"
    assert said["modelspec.implementation"] == "bidiffsr_arch" and said["modelspec.prediction_type"] == "epsilon"
    assert said["modelspec.title"] == ("BI-DiffSR x2" if packed else "Tiny x2")
    assert ("modelspec.license" in said) == (not packed)
    content = path.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert said["modelspec.hash_sha256"] == f"0x{hashlib.sha256(data).hexdigest()}"
    assert from_tensors(load_file(path))["scale"] == 2


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (dict(network_g=dict(type="BIDiffSRUNet")), "epsilon"),  # the default of beta_schedule
        (dict(network_g=dict(type="Other"), beta_schedule=dict(prediction_type="v_prediction")), "v"),
        (dict(network_g=dict(type="SR3UNet"), beta_schedule=dict(prediction_type="sample")), None),  # no name for it
        (dict(network_g=dict(type="BBCUNet"), scale=2), None),
    ],
)
def test_only_diffusion_networks_have_a_prediction_type(description, expected):
    assert modelspec(description, "0").get("modelspec.prediction_type") == expected


def test_packed_files_without_the_tensor_are_read(tiny_network, tmp_path):
    """As earlier versions wrote them."""
    from bidiffsr_arch.packed.file_format import FORMAT, VERSION, load_packed, with_checksum
    from bidiffsr_arch.packed.state import packed_state

    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    metadata = {"format": FORMAT, "version": VERSION, "description": json.dumps({"network_g": network_g, "scale": 2})}
    (tmp_path / "old.safetensors").write_bytes(with_checksum(packed_state(tiny_network), metadata))
    network, description = load_packed(tmp_path / "old.safetensors")
    assert description.scale == 2 and network.multiple == tiny_network.multiple
    assert Upscaler.shipped(2).scale == 2


def test_descriptions_survive_as_tensors():
    description = describe({"network_g": {"type": "x", "fp_res": (1, 2)}, "scale": 4, "name": "left out"}, steps=3)
    assert description == {"network_g": {"type": "x", "fp_res": [1, 2]}, "scale": 4, "steps": 3}
    assert from_tensors({TENSOR: to_tensor(description)}) == description
    for wrong in ({}, {TENSOR: torch.zeros(3)}, {TENSOR: to_tensor(description)[:9]}, {TENSOR: to_tensor([1])}):
        assert from_tensors(wrong) is None


def test_a_card_contains_the_description_only():
    bare = model_card({"network_g": {"type": "BIDiffSRUNet"}, "scale": 2})
    assert "licen" not in bare and "Results" not in bare and "dB" not in bare and "| upscales by | 2 |" in bare
    full = model_card({"network_g": {"type": "BIDiffSRUNet"}, "scale": 2, "about": ABOUT})
    assert "| Set5 | PSNR 33.1 |" in full and "# Tiny x2" in full
    from huggingface_hub import ModelCard

    data = ModelCard(full).data
    assert data.license == "apache-2.0" and data.tags == ["super-resolution"] and data.library_name == "bidiffsr_arch"
    assert "a / b" in model_card({"network_g": {}, "about": {"data": "a | b"}})
    assert "--weights FOLDER" in bare and "--weights hf://me/net" in model_card({"network_g": {}}, "hf://me/net")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert all(line in bare and line in readme for line in INSTALL)
    assert "modelspec.author" not in modelspec({"network_g": {}}, "0")


def test_networks_store_their_arguments(tiny_options):
    network = BIDiffSRUNet(**tiny_options)
    assert network.arguments["inner_channel"] == 8 and network.arguments["rescale"] == "cp"
    copy = deepcopy(network)
    assert copy.arguments == network.arguments
    with pytest.raises(TypeError, match="no_such"):
        BIDiffSRUNet(no_such=1)


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_description(folder: Path) -> None:
    """As another program may save it: then config.json counts."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(TENSOR)
    save_file(tensors, folder / "model.safetensors")


WRONG = {
    "nothing in it": (lambda folder: [path.unlink() for path in folder.iterdir()], "expected model.safetensors in"),
    "another scale in the config": (lambda folder: rewritten(folder, scale=4), "differ; save both again"),
    "no network in the config": (lambda folder: rewritten(folder, network_g=3), "expected `network_g` in"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "expected JSON in"),
    "a network that there is not": (
        lambda folder: (without_description(folder), rewritten(folder, network_g={"type": "os.system"})),
        "network_g: type to be one of",
    ),
    "arguments that there are not": (
        lambda folder: (without_description(folder), rewritten(folder, network_g={"type": "BIDiffSRUNet", "x": 1})),
        "cannot be built",
    ),
    "weights of another network": (
        lambda folder: (without_description(folder), rewritten(folder, network_g={"type": "BIDiffSRUNet"})),
        "expected weights of the network in",
    ),
    "an impossible schedule": (
        lambda folder: (without_description(folder), rewritten(folder, diffuse="noise")), "diffuse",
    ),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folders_are_one_line(folder, case):
    change, message = WRONG[case]
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        Upscaler.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_config_imports_nothing(folder, tmp_path, monkeypatch):
    """An option file may name plugins; a config.json may not."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    without_description(folder)
    rewritten(folder, plugins=["evil"])
    assert Upscaler.from_pretrained(folder).scale == 2 and "evil" not in sys.modules


def test_a_config_alone_is_enough(folder):
    expected = Upscaler.from_pretrained(folder)(IMAGE)
    without_description(folder)
    np.testing.assert_array_equal(Upscaler.from_pretrained(folder)(IMAGE), expected)


def test_nothing_is_overwritten_by_default(folder, tiny_network, tmp_path):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"expected a folder without config\.json"):
        tiny_network.save_pretrained(folder, scale=4)
    assert (folder / "model.safetensors").read_bytes() == before
    tiny_network.save_pretrained(folder, scale=4, overwrite=True)
    assert load_weights(folder).scale == 4
    with pytest.raises(InputError, match="expected `network_g` and `scale`"):
        tiny_network.save_pretrained(tmp_path / "unknown")


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://a b/c", "hf://a/b/../x"])
def test_wrong_addresses_are_one_line(address):
    with pytest.raises(InputError, match="expected hf://OWNER/NAME"):
        local(address)


CHILD = """
import sys, numpy, huggingface_hub
from bidiffsr_arch import Upscaler
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.errors import InputError

image = numpy.arange(192, dtype=numpy.uint8).reshape(8, 8, 3)
expected = Upscaler.from_pretrained(sys.argv[1])(image)
for upscaler in (
    Upscaler.from_pretrained("me/net"), Upscaler.from_pretrained("me/net", revision="v1"),
    Upscaler.from_file("hf://me/net"), Upscaler.from_file("hf://me/net@v1"),
    Upscaler.from_file("hf://me/net@v1/model.safetensors"),
):
    assert (upscaler(image) == expected).all()

def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        print(error)
    else:
        raise AssertionError(arguments)

refused(Upscaler.from_pretrained, "me/none")
refused(Upscaler.from_pretrained, "me/net", revision="v9")
refused(Upscaler.from_file, "hf://me/net/other.safetensors")
network = BIDiffSRUNet.from_pretrained("me/net")
print(network.push_to_hub("me/pushed", token="secret", about={"title": "Pushed"}))
assert (Upscaler.from_pretrained("me/pushed")(image) == expected).all()
refused(network.push_to_hub, "me/pushed", token="wrong")
"""

COMMAND = "import sys; from bidiffsr_arch.cli import main; sys.exit(main(sys.argv[1:]))"
AT_ONCE = "import time; time.sleep = lambda seconds: None\n"  # huggingface_hub asks again after 1, 2, 4, ... seconds
OFFLINE = """
from bidiffsr_arch import Upscaler
from bidiffsr_arch.errors import InputError

Upscaler.from_pretrained("me/net")  # from the cache
try:
    Upscaler.from_pretrained("me/unknown")
except InputError as error:
    assert len(str(error).splitlines()) == 1
    print(error)
"""


def child(code: str, *arguments: str, status: int = 0, **environment: str) -> list[str]:
    """The lines that code prints to stdout, or, if it is expected to fail, to stderr."""
    done = run_code(code, *arguments, imported=("torch",), **environment)
    assert done.returncode == status, done.stderr
    return (done.stderr if status else done.stdout).splitlines()


@pytest.mark.parametrize("weights", ["hf://me/net", "hf://me/net@v1/model.safetensors"])
def test_the_command_takes_an_address_and_then_the_cache(folder, tmp_path, weights):
    """The second time without a server, as where there is no network; HF_HUB_OFFLINE is not set."""
    pytest.importorskip("huggingface_hub")
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    cache = dict(HF_HOME=str(tmp_path / "cache"), HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1")
    words = ("upscale", str(tmp_path / "a.png"), "--quiet", "-o")
    with hub({"me/net": files}) as server:
        environment = cache | {"HF_ENDPOINT": server.address}
        child(COMMAND, *words, str(tmp_path / "online"), "--weights", weights, **environment)
    child(COMMAND, *words, str(tmp_path / "cached"), "--weights", weights, **environment)
    assert main([*words, str(tmp_path / "local"), "--weights", str(folder)]) == 0
    results = {(tmp_path / name / "a.png").read_bytes() for name in ("online", "cached", "local")}
    assert len(results) == 1
    unknown = ("--weights", weights.replace("net", "none"))
    (line,) = child(AT_ONCE + COMMAND, *words, str(tmp_path / "unknown"), *unknown, status=2, **environment)
    assert "cannot download me/none" in line


def test_the_hub_by_its_environment_variable(folder, tmp_path):
    """Everything against a server on 127.0.0.1, and once more when it is gone."""
    pytest.importorskip("huggingface_hub")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"evil.py": b"1 / 0", "evil.pkl": b"cos\n"}
    cache = dict(HF_HOME=str(tmp_path / "cache"), HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1")
    with hub({"me/net": files}) as server:
        said = child(CHILD, str(folder), HF_ENDPOINT=server.address, **cache)
        pushed = server.repositories["me/pushed"]
        asked = " ".join(server.asked)
    assert "cannot download me/none from the Hub" in said[0] and "me/net at v9" in said[1] and "me/net" in said[2]
    assert said[3].startswith(server.address) and "cannot upload to me/pushed" in said[4]
    assert {"config.json", "model.safetensors", "README.md"} <= set(pushed)
    assert b"# Pushed" in pushed["README.md"] and b"--weights hf://me/pushed\n" in pushed["README.md"]
    assert "evil" not in asked.replace("tree", "")
    (line,) = child(OFFLINE, HF_ENDPOINT=server.address, HF_HUB_OFFLINE="1", **cache)
    assert line.startswith("cannot download me/unknown from the Hub")


def test_the_command_takes_a_folder(folder, tmp_path, capsys):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--weights", str(folder)]) == 0
    with Image.open(tmp_path / "out" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), Upscaler.from_pretrained(folder)(IMAGE))
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "b"), "--weights", "hf://a"]) == 2
    assert "expected hf://OWNER/NAME" in capsys.readouterr().err

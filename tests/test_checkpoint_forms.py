"""Files of weights in every form that other programs write: each loads everywhere, or is refused in one line."""

import argparse
import os
import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from bidiffsr_arch import Upscaler
from bidiffsr_arch.archs import BBCUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.cli.pack import packed_checkpoint
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.packed import pack
from bidiffsr_arch.training import BIDiffSRModel  # isort: split

from basicsr.models.sr_model import SRModel  # after bidiffsr_arch, which patches what BasicSR imports

State = dict[str, Tensor]
DIRECT = dict(type="BBCUNet", num_feat=8, num_block=1, upscale=2)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


# What is saved by torch.save, from a state dict.
CONTENTS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state},
    "an average beside initial weights": lambda state: {"params": zeros(state), "params_ema": state},
    "ema": lambda state: {"ema": state, "epoch": 3},
    "settings of an average": lambda state: {"ema": {"decay": 0.9}, "state_dict": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": "unet"},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "model: state_dict": lambda state: {"model": {"state_dict": state}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(0.5)},
    "generator": lambda state: {"generator": state, "discriminator": {"weight": torch.ones(3)}},
    "DeepSpeed": lambda state: {"module": state, "global_steps": 7},
    "module.": lambda state: {"params": prefixed("module.", state)},
    "DistributedDataParallel": lambda state: prefixed("module.", state),
    "_orig_mod.": lambda state: {"params": prefixed("_orig_mod.", state)},
    "module._orig_mod.": lambda state: prefixed("module._orig_mod.", state),
    "_orig_mod.module.": lambda state: prefixed("_orig_mod.module.", state),
    "a compiled part": lambda state: {name.replace(".", "._orig_mod.", 1): tensor for name, tensor in state.items()},
    "SR3": lambda state: prefixed("denoise_fn.", state) | {"betas": torch.zeros(3), "sqrt_alphas": torch.zeros(3)},
    "Lightning's model": lambda state: {"state_dict": prefixed("model.", state), "pytorch-lightning_version": "2.5"},
    "Lightning's net_g": lambda state: {
        "state_dict": prefixed("net_g.", state) | {"net_d.weight": torch.ones(3)}, "hyper_parameters": {"lr": 1e-4}
    },
    "a prefix of its own": lambda state: prefixed("trainer.student.unet.", state),
    "parameters": lambda state: {name: nn.Parameter(tensor) for name, tensor in state.items()},
}  # fmt: skip


def save(content: Any, file: Path, **how: Any) -> None:
    torch.save(content, file, **how)


def from_cuda(state: State, file: Path, patch: pytest.MonkeyPatch) -> None:
    """As saved from the memory of a GPU, which this machine need not have."""
    with patch.context() as there:
        there.setattr(torch.serialization, "location_tag", lambda storage: "cuda:1")
        torch.save({"params": state}, file)
    with pytest.raises(RuntimeError, match="CUDA"):
        if torch.cuda.device_count() < 2:
            torch.load(file)
        raise RuntimeError("CUDA is there")


# Other formats of the file.
FILES: dict[str, tuple[str, Callable[[State, Path, pytest.MonkeyPatch], None]]] = {
    "torch before 1.6": (
        "net.pth", lambda state, file, patch: save({"params": state}, file, _use_new_zipfile_serialization=False)),
    "from a GPU": ("net.pth", from_cuda),
    "a .pt": ("net.pt", lambda state, file, patch: save(state, file)),
    "a .ckpt": ("net.ckpt", lambda state, file, patch: save({"state_dict": prefixed("model.", state)}, file)),
    "float64": ("net.pth", lambda state, file, patch: save({n: t.double() for n, t in state.items()}, file)),
    "safetensors": ("net.safetensors", lambda state, file, patch: save_file(state, file)),
    "safetensors with metadata": (
        "net.safetensors", lambda state, file, patch: save_file(state, file, {"format": "pt", "title": "a network"})),
    "safetensors with prefixes": (
        "net.safetensors", lambda state, file, patch: save_file(prefixed("_orig_mod.module.", state), file)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """A current directory with an image in in/."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save("in/a.png")
    return tmp_path


@pytest.fixture
def direct(options) -> dict[str, Any]:
    """Options of a network without diffusion, for BasicSR's own SRModel."""
    own = {key: value for key, value in options.items() if key != "beta_schedule"}
    return own | dict(model_type="SRModel", network_g=DIRECT)


def written(options: dict[str, Any]) -> str:
    plain = {key: options[key] for key in ("name", "model_type", "scale", "num_gpu", "network_g")}
    plain |= {"beta_schedule": options["beta_schedule"]} if "beta_schedule" in options else {}
    content = plain | {"datasets": {}, "path": {}, "val": {"save_img": False}}
    Path("options.yml").write_text(yaml.safe_dump(content))
    return "options.yml"


def model_of(options: dict[str, Any], file: Path, is_train: bool) -> Any:
    kind = BIDiffSRModel if options["model_type"] == "BIDiffSRModel" else SRModel
    path = options["path"] | dict(pretrain_network_g=str(file), strict_load_g=True)
    path |= {} if kind is BIDiffSRModel and not is_train else {"param_key_g": "params_ema"}
    return kind(deepcopy(options) | dict(path=path, is_train=is_train))


def loaded(options: dict[str, Any], file: Path) -> Iterator[State]:
    """The state dict that each reader loads: training and tests by `path: pretrain_network_g`, and `basicsr upscale`;
    `basicsr pack` is compared here."""
    for is_train in (True, False):
        yield model_of(options, file, is_train).net_g.state_dict()
    network = load_weights(file, option_file := written(options)).network
    yield network.state_dict()
    packed, expected = packed_checkpoint(file, option_file, None)[0].state, pack(network, "torch").state
    assert all(torch.equal(tensor, packed[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("form", [*CONTENTS, *FILES])
@pytest.mark.parametrize("kind", ["diffusion", "direct"])
def test_every_form_is_loaded(form, kind, options, direct, tiny_network, workplace, monkeypatch, caplog):
    torch.manual_seed(1)
    options, network = (options, tiny_network) if kind == "diffusion" else (direct, BBCUNet(**without_type(DIRECT)))
    state = {name: tensor.clone() for name, tensor in network.eval().state_dict().items()}
    name, write = FILES.get(form, ("net.pth", lambda state, file, patch: save(CONTENTS[form](state), file)))
    write(state, workplace / name, monkeypatch)
    for found in loaded(options, workplace / name):
        assert found.keys() == state.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in state.items())
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def without_type(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "type"}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_in_half_precision_are_used_in_float32(options, tiny_network, workplace, kind, suffix):
    half = {name: t.to(kind) if t.is_floating_point() else t for name, t in tiny_network.state_dict().items()}
    file = workplace / f"net{suffix}"
    save_file(half, file) if suffix == ".safetensors" else torch.save(half, file)
    tiny_network.load_state_dict(half)
    for found in loaded(options, file):
        assert all(torch.equal(tensor, found[key]) for key, tensor in tiny_network.state_dict().items())
        assert all(tensor.dtype == torch.float32 for tensor in found.values() if tensor.is_floating_point())


def test_the_commands_take_such_files(options, tiny_network, workplace):
    torch.save({"generator": prefixed("module.", tiny_network.state_dict())}, "net.ckpt")
    option_file = written(options)
    assert main(["pack", "net.ckpt", "-opt", option_file, "-o", "packed.safetensors"]) == 0
    for weights, more in (("net.ckpt", ["-opt", option_file]), ("packed.safetensors", [])):
        assert main(["upscale", "in", "-o", f"by {weights}", "--weights", weights, "--quiet", *more]) == 0
        assert Path(f"by {weights}", "a.png").is_file()


class Plugin(nn.Module):
    """A network of another package, whose names begin as wrappers' do, and whose state dict has more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.model = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.calls = 0

    def get_extra_state(self) -> int:
        """A number."""
        return self.calls

    def set_extra_state(self, state: int) -> None:
        """Restore the number."""
        self.calls = state


def test_names_numbers_and_extra_states_of_other_networks_are_kept(direct, workplace):
    torch.manual_seed(0)
    first, second, model = Plugin(), Plugin(), SRModel(deepcopy(direct) | {"is_train": False})
    first.calls = 5
    for content in (first.state_dict(), {"params": first.state_dict()}, prefixed("module.", first.state_dict())):
        torch.save(content, "net.pth")
        model.load_network(second, "net.pth", param_key="params")
        assert second.calls == 5 and torch.equal(first.mask, second.mask)
        assert torch.equal(first.model.weight, second.model.weight)
        assert torch.equal(first.module.weight, second.module.weight)


def test_without_strict_load_only_fitting_parameters_are_loaded_into_basicsrs_networks(direct, workplace):
    torch.manual_seed(0)
    model = SRModel(deepcopy(direct) | {"is_train": False})
    before = {name: tensor.clone() for name, tensor in model.net_g.state_dict().items()}
    state = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in before.items()}
    odd, gone, *_ = [name for name, tensor in state.items() if tensor.dim() == 4]
    state[odd], state["more"] = torch.zeros(1), torch.zeros(1)
    del state[gone]
    torch.save({"params": state}, "net.pth")
    model.load_network(model.net_g, "net.pth", strict=False)
    for name, tensor in model.net_g.state_dict().items():
        assert torch.equal(tensor, before[name] if name in (odd, gone) else state[name])
    with pytest.raises(InputError, match=r"got net\.pth, which differs in 3 places; first: ") as caught:
        model.load_network(model.net_g, "net.pth", strict=True)
    assert "\n" not in str(caught.value)
    torch.save(nn.Linear(2, 2).state_dict(), "net.pth")
    with pytest.raises(InputError, match=r"got net\.pth, of which none fits it"):
        model.load_network(model.net_g, "net.pth", strict=False)


# refused


class Code:
    """Would make a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def cut(content: bytes, missing: int) -> bytes:
    return content[:-missing]


def saved(content: Any, **how: Any) -> bytes:
    torch.save(content, "saved.pth", **how)
    return Path("saved.pth").read_bytes()


def tensors_of(state: State, **how: Any) -> bytes:
    save_file(state, "saved.safetensors", **how)
    return Path("saved.safetensors").read_bytes()


def scripted() -> bytes:
    """A file that torch takes for TorchScript."""
    with ZipFile("saved.pth", "w") as file:
        for name, content in (("data.pkl", pickle.dumps({})), ("constants.pkl", b""), ("version", b"3\n")):
            file.writestr(f"saved/{name}", content)
    return Path("saved.pth").read_bytes()


# Name of the file, its content from a state dict (None: a folder), and a part of the message.
REFUSED: dict[str, tuple[str, Callable[[State], bytes | None], str]] = {
    "truncated": ("net.pth", lambda state: cut(saved({"params": state}), 300), "which does not load"),
    "truncated, torch before 1.6": (
        "net.pth", lambda state: cut(saved(state, _use_new_zipfile_serialization=False), 30), "which does not load"),
    "truncated safetensors": ("net.safetensors", lambda state: cut(tensors_of(state), 30), "net.safetensors"),
    "empty file": ("net.pth", lambda state: b"", "which does not load"),
    "empty safetensors": ("net.safetensors", lambda state: b"", "net.safetensors"),
    "a folder": ("net.pth", lambda state: None, "net.pth"),
    "a folder of safetensors": ("net.safetensors", lambda state: None, "net.safetensors"),
    "code": ("net.pth", lambda state: saved({"params": state, "more": Code()}), "it contains objects of"),
    "code alone": ("net.pth", lambda state: saved(Code()), "it contains objects of"),
    "code, torch before 1.6": (
        "net.pth", lambda state: saved(Code(), _use_new_zipfile_serialization=False), "it contains objects of"),
    "code in a plain pickle": ("net.pth", lambda state: pickle.dumps({"params": Code()}), "which does not load"),
    "another program's class": (
        "net.pth", lambda state: saved({"params": state, "args": argparse.Namespace(lr=1)}), "of argparse.Namespace"),
    "arrays of numpy": ("net.pth", lambda state: saved({"a": np.zeros(3)}), "it contains objects of numpy"),
    "a whole module": ("net.pth", lambda state: saved(nn.Linear(2, 2)), "of torch.nn.modules.linear.Linear"),
    "TorchScript": ("net.pth", lambda state: scripted(), "which does not load"),
    "an option file": ("net.pth", lambda state: b"name: tiny\n", "which does not load"),
    "nothing in it": ("net.pth", lambda state: saved({}), "got nothing"),
    "no parameters": ("net.pth", lambda state: saved({"params": {}}), "got the keys params"),
    "no tensors": ("net.safetensors", lambda state: tensors_of({}), "got nothing"),
    "a list": ("net.pth", lambda state: saved(list(state.values())), "expected a dictionary of tensors"),
    "a tensor": ("net.pth", lambda state: saved(torch.zeros(3)), "expected a dictionary of tensors"),
    "a training state": (
        "net.pth", lambda state: saved({"epoch": 0, "iter": 1, "optimizers": [{}], "schedulers": [{}]}),
        "got a training state, which has none; name the network's file"),
    "numbers for names": ("net.pth", lambda state: saved(dict(enumerate(state.values()))), "which differs in"),
    "another network": ("net.pth", lambda state: saved(nn.Linear(2, 2).state_dict()), "which differs in"),
    "half of the parameters": (
        "net.pth", lambda state: saved(dict(list(state.items())[::2])), "which differs in"),
    "one more parameter": (
        "net.pth", lambda state: saved(state | {"more": torch.zeros(1)}), "which differs in 1 place"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("kind", ["diffusion", "direct"])
def test_what_is_no_weights_file_is_one_line(form, kind, options, direct, tiny_network, workplace, capsys):
    options, network = (options, tiny_network) if kind == "diffusion" else (direct, BBCUNet(**without_type(DIRECT)))
    name, content, message = REFUSED[form]
    made, file = content(network.state_dict()), workplace / name
    if made is None:
        file.mkdir()
    else:
        file.write_bytes(made)
    for is_train in (True, False):
        with pytest.raises(InputError) as caught:
            model_of(options, file, is_train)
        assert "\n" not in str(caught.value) and message in str(caught.value) and name in str(caught.value)
    option_file = written(options)
    with pytest.raises(InputError, match=name):
        Upscaler.from_file(file, option_file)
    if kind == "direct":
        return
    capsys.readouterr()
    for command in (["pack", str(file), "-opt", option_file, "-o", "packed.safetensors"],
                    ["upscale", "in", "-o", "out", "--weights", str(file), "-opt", option_file]):  # fmt: skip
        assert main(command) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("basicsr: ") and name in lines[0]
        assert "\x1b" not in lines[0] and "trust" not in lines[0]
    assert not any(Path(left).exists() for left in ("ran", "out", "packed.safetensors"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(options, tiny_network, workplace, value):
    state = {name: tensor.clone() for name, tensor in tiny_network.state_dict().items()}
    state["downs.0.weight"][0, 0, 0, 0] = value
    torch.save(state, "net.pth")
    with pytest.raises(InputError, match=r"got NaN or infinity in 1 tensors, downs\.0\.weight among them"):
        model_of(options, workplace / "net.pth", is_train=False)

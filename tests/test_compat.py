"""Patches of BasicSR: the defect in the stock function, then the patched one. Option files and data have own files."""

import importlib
import inspect
import os
import sys
from pathlib import Path

import pytest
import torch
from basicsr import train
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util
from basicsr.utils.registry import Registry
from child import run_code

from bidiffsr_arch import compat, description
from bidiffsr_arch.compat import imports
from bidiffsr_arch.errors import InputError

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="the defect shows on machines without CUDA")


def test_torchvision_is_patched_exactly_where_its_import_fails():
    stock = run_code("import torchvision")
    needed = "torchvision_operators" in dict(compat.applied())
    assert (stock.returncode != 0) == needed
    assert not needed or "operator torchvision::nms does not exist" in stock.stderr
    assert not imports.torchvision_operators(), "torchvision is imported by now, so there is nothing to patch"


def test_functional_tensor_is_found_again(monkeypatch):
    gone = "torchvision.transforms.functional_tensor"
    if "torchvision_functional_tensor" not in dict(compat.applied()):
        pytest.skip("this torchvision still has it")
    monkeypatch.delitem(sys.modules, gone)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(gone)
    assert imports.torchvision_functional_tensor()
    assert callable(importlib.import_module(gone).rgb_to_grayscale)
    assert not imports.torchvision_functional_tensor()


def test_versions_compare_without_distutils(monkeypatch):
    monkeypatch.setitem(sys.modules, "distutils.version", None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("distutils.version")
    assert imports.distutils_version()
    version = importlib.import_module("distutils.version").LooseVersion
    assert version("0.28.0+cpu") >= version("0.9.0")
    assert not imports.distutils_version()


def test_apply_is_idempotent_and_lists_one_line_for_each_patch():
    before, parse_options = compat.applied(), train.parse_options
    compat.apply(compat.BEFORE_BASICSR)
    compat.apply(compat.AFTER_BASICSR)
    assert compat.applied() == before
    assert train.parse_options is parse_options
    names = [name for name, _ in before]
    assert {"command_line", "resume_state", "silent_crops"} <= set(names)
    assert all(line.endswith(".") and "\n" not in line and len(line) < 160 for _, line in before)


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 12, 1), (3, 14, 2)])
def test_a_supported_python_gets_no_warning(version):
    assert compat.unsupported_python(version) is None


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 15, 0), (4, 10, 0)])
def test_other_python_gets_one_line(version):
    line = compat.unsupported_python(version)
    assert "3.10 to 3.14" in line and ".".join(map(str, version)) in line and "\n" not in line


def test_unknown_name_lists_the_known_ones(capsys):
    registry = Registry("arch")
    registry._do_register("BIDiffSRUNet", int)
    registry._do_register("Plain", float, suffix="basicsr")
    with pytest.raises(KeyError):
        inspect.unwrap(Registry.get)(registry, "BIDifSRUNet")
    assert "use name: BIDifSRUNet_basicsr" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no arch named 'BIDifSRUNet'; did you mean 'BIDiffSRUNet'\? Known: .*Plain"):
        registry.get("BIDifSRUNet")
    with pytest.raises(InputError, match="was the package that registers it imported"):
        registry.get("x")
    assert registry.get("BIDiffSRUNet") is int
    assert registry.get("Plain") is float
    assert capsys.readouterr().out == ""


@pytest.fixture
def experiment(tmp_path: Path) -> dict:
    """Options of a run that saved states 5, 10, 15 (no network), 20 (truncated) and 'latest', without an iteration."""
    folders = {key: tmp_path / key for key in ("models", "training_states")}
    for folder in folders.values():
        folder.mkdir()
    for iteration in (5, 10, 15, 20):
        state = {"epoch": 0, "iter": iteration, "optimizers": [{"state": {}}], "schedulers": []}
        torch.save(state, folders["training_states"] / f"{iteration}.state")
        if iteration != 15:
            torch.save({"params": {}}, folders["models"] / f"net_g_{iteration}.pth")
    broken = folders["training_states"] / "20.state"
    broken.write_bytes(broken.read_bytes()[:100])
    (folders["training_states"] / "latest.state").touch()
    paths = {key: str(folder) for key, folder in folders.items()}
    run = {"name": "run", "auto_resume": True, "rank": 0, "world_size": 1, "dist": False, "network_g": {}}
    return {**run, "path": {**paths, "resume_state": None}}


def test_auto_resume_takes_the_newest_good_state_in_its_own_root(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert inspect.unwrap(train.load_resume_state)(experiment) is None, "stock looks in ./experiments"
    assert train.load_resume_state(experiment)["iter"] == 10
    assert experiment["path"]["resume_state"].endswith("10.state")
    assert experiment["path"]["pretrain_network_g"].endswith("net_g_10.pth")
    said = capsys.readouterr().out
    assert "20.state does not load" in said and "net_g_15.pth is missing" in said


def test_auto_resume_starts_from_scratch_without_a_state(experiment, tmp_path):
    experiment["path"]["training_states"] = str(tmp_path / "nothing")
    assert train.load_resume_state(experiment) is None


@without_cuda
def test_a_state_resumes_on_a_cpu(experiment):
    experiment["auto_resume"] = False
    experiment["path"]["resume_state"] = str(Path(experiment["path"]["training_states"], "5.state"))
    with pytest.raises((AssertionError, RuntimeError)):
        inspect.unwrap(train.load_resume_state)(experiment)
    assert train.load_resume_state(experiment)["iter"] == 5


@pytest.mark.parametrize(("name", "message"), [("7.state", "does not exist"), ("20.state", "does not load")])
def test_a_named_state_that_cannot_be_used_is_an_error(experiment, name, message):
    experiment["auto_resume"] = False
    experiment["path"]["resume_state"] = str(Path(experiment["path"]["training_states"], name))
    with pytest.raises(InputError, match=message):
        train.load_resume_state(experiment)


def test_a_state_that_would_run_code_is_refused(experiment, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    experiment["auto_resume"] = False
    experiment["path"]["resume_state"] = str(tmp_path / "6.state")
    torch.save({"epoch": 0, "iter": 6, "optimizers": [], "schedulers": [Code()]}, tmp_path / "6.state")
    with pytest.raises(InputError, match="does not load"):
        train.load_resume_state(experiment)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def one_process(tmp_path, monkeypatch):
    """The environment that a launcher sets for a run of one process, and the end of that run."""
    monkeypatch.setenv("RANK", "0")
    yield {"init_method": f"file://{tmp_path / 'meeting'}", "world_size": 1, "rank": 0}
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@without_cuda
def test_distributed_runs_work_on_a_cpu(one_process):
    with pytest.raises(ZeroDivisionError):
        inspect.unwrap(dist_util._init_dist_pytorch)("nccl", **one_process)
    dist_util._init_dist_pytorch("nccl", **one_process)
    assert torch.distributed.get_backend() == "gloo"

    model = BaseModel({"num_gpu": 0, "dist": True, "is_train": True})
    network = torch.nn.Linear(2, 1)
    with pytest.raises((AssertionError, RuntimeError)):
        inspect.unwrap(BaseModel.model_to_device)(model, network)
    wrapped = model.model_to_device(network)
    assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel)
    assert model.get_bare_model(wrapped) is network
    wrapped(torch.ones(1, 2)).sum().backward()
    assert network.weight.grad.tolist() == [[1.0, 1.0]]


def test_a_single_process_keeps_the_stock_way_to_the_device():
    model = BaseModel({"num_gpu": 0, "dist": False, "is_train": True})
    network = torch.nn.Linear(2, 1)
    assert model.model_to_device(network) is network


@pytest.fixture
def model(tmp_path) -> BaseModel:
    """A model whose folder for networks is a file, so that saving fails."""
    (tmp_path / "models").write_text("")
    paths = {"models": str(tmp_path / "models"), "training_states": str(tmp_path / "states")}
    run = {"num_gpu": 0, "dist": False, "rank": 0, "world_size": 1, "is_train": True}
    return BaseModel({**run, "path": paths})


def test_a_checkpoint_that_cannot_be_written_ends_training(model, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    stock = inspect.unwrap(BaseModel.save_network)
    stock(model, torch.nn.Linear(2, 1), "net_g", 5)  # three tries, then silence
    with pytest.raises(InputError, match=r"models/net_g_5\.pth cannot be written"):
        model.save_network(torch.nn.Linear(2, 1), "net_g", 5)


def test_networks_and_states_are_saved_as_basicsr_does(model, tmp_path):
    (tmp_path / "models").unlink()
    network = torch.nn.Linear(2, 1)
    model.save_network([network, network], "net_g", -1, param_key=["params", "params_ema"])
    content = torch.load(tmp_path / "models" / "net_g_latest.pth", weights_only=True)
    assert list(content)[:2] == ["params", "params_ema"] and torch.equal(content["params"]["weight"], network.weight)
    assert set(content) <= {"params", "params_ema", description.KEY}
    model.save_training_state(3, -1)
    assert not (tmp_path / "states").exists(), "the latest network has no state of its own"
    model.optimizers.append(torch.optim.Adam(network.parameters()))
    model.save_training_state(3, 7)
    state = torch.load(tmp_path / "states" / "7.state", weights_only=True)
    assert (state["epoch"], state["iter"], len(state["optimizers"]), state["schedulers"]) == (3, 7, 1, [])
    assert len(state["networks"]["net_g"]) == 64

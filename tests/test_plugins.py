"""Packages that register with BasicSR: broken ones are reported and skipped, and users can name further ones."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import bad_input
import pytest
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from small_run import basicsr, log_of

from bidiffsr_arch import plugins
from bidiffsr_arch.cli import main
from bidiffsr_arch.config.shipped import shipped_path
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import build_network, find_architecture
from bidiffsr_arch.packed import registry as packers

NETWORK = """
from torch import nn
from basicsr.utils.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class LateNetwork(nn.Conv2d):
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder with a module that registers a network, from which commands are started."""
    (tmp_path / "late_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("late_networks", None)
    ARCH_REGISTRY._obj_map.pop("LateNetwork", None)


@pytest.fixture
def broken(monkeypatch):
    """Two plugins, of which one cannot be imported, in a process that has loaded none yet."""

    def listed(group: str) -> list[EntryPoint]:
        assert group == "basicsr.plugins"
        return [EntryPoint("bad", "no_such_module_here", group), EntryPoint("good", "json", group)]

    monkeypatch.setattr(plugins, "entry_points", listed)
    monkeypatch.setattr(plugins, "_failed", None)


def test_a_broken_plugin_is_reported_once_and_skipped(broken, capsys):
    plugins.load_plugins()
    plugins.load_plugins()
    said = capsys.readouterr().err
    assert said == "basicsr: plugin 'bad' is skipped: ModuleNotFoundError: No module named 'no_such_module_here'\n"
    assert plugins.failed_plugins() == {"'bad'": "ModuleNotFoundError: No module named 'no_such_module_here'"}


def test_the_message_for_an_unknown_network_names_broken_plugins(broken):
    assert build_network({"type": "SRVGGNetCompact"}) is not None
    with pytest.raises(InputError, match=r"network_g: type .* got 'Missing'; plugin 'bad' was not imported: Module"):
        build_network({"type": "Missing"})


def test_this_package_lists_itself_as_a_plugin():
    assert "bidiffsr_arch" in {plugin.value for plugin in entry_points(group=plugins.GROUP)}


def test_own_networks_need_no_plugin(monkeypatch):
    monkeypatch.setattr("bidiffsr_arch.networks.load_plugins", lambda: pytest.fail("plugins were loaded"))
    assert find_architecture("SR3UNet").__module__ == "bidiffsr_arch.archs.sr3_arch"


def test_a_named_module_of_the_current_folder_is_imported(package):
    plugins.import_plugins(["late_networks"], {})
    network = build_network({"type": "LateNetwork", "in_channels": 1, "out_channels": 2, "kernel_size": 3})
    assert network.out_channels == 2


def test_modules_that_an_option_file_names_have_to_be_installed(package):
    with pytest.raises(InputError, match=r"plugin late_networks cannot be imported: ModuleNotFoundError"):
        plugins.import_plugins((), {"plugins": ["late_networks"]})
    sys.path.append(str(package))  # as if it were
    plugins.import_plugins((), {"plugins": ["late_networks"]})
    assert "LateNetwork" in ARCH_REGISTRY


@pytest.mark.parametrize(
    "name", ["no_such_module_here", "../late_networks", ".late_networks", "late_networks;", "", "."]
)
def test_a_module_that_cannot_be_imported_is_one_line(package, name):
    with pytest.raises(InputError, match=r"^plugin .* cannot be imported: .*; install it, or correct its name$"):
        plugins.import_plugins([name], {})
    assert "late_networks" not in sys.modules


@pytest.mark.parametrize("listed", ["hat", [3]])
def test_plugins_are_a_list(listed):
    with pytest.raises(InputError, match=r"expected plugins: to be a list of modules"):
        plugins.import_plugins((), {"plugins": listed})


TWICE = NETWORK + NETWORK.replace("from", "#")
FAILURES = {
    "an error of two lines": "raise RuntimeError('two\\nlines')",
    "the end of the program": "import sys; sys.exit(3)",
    "SystemExit with a text": "raise SystemExit('usage: plugin [-h]')",
    "another BaseException": "class Odd(BaseException): pass\nraise Odd('odd')",
    "a closed generator": "raise GeneratorExit",
    "no Python": "def (:",
    "a division": "1 / 0",
    "an error without a message": "raise ValueError",
    "control characters": "raise ValueError('\\x1b[31mred')",
    "a name that is registered twice": TWICE,
    "another plugin that is missing": "import no_such_module_here",
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_plugin_may_fail_in_any_way(package, monkeypatch, capsys, case):
    """A module that ends the program included, as a script that parses arguments does when it is imported."""
    (package / "failing.py").write_text(FAILURES[case])
    with pytest.raises(InputError, match=r"^plugin failing cannot be imported: .*; install it") as caught:
        plugins.import_plugins(["failing"], {})
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    ARCH_REGISTRY._obj_map.pop("LateNetwork", None)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("bad", "failing", group)])
    monkeypatch.setattr(plugins, "_failed", None)
    plugins.load_plugins()
    said = capsys.readouterr().err
    assert said.startswith("basicsr: plugin 'bad' is skipped: ") and said.count("\n") == 1


def test_ctrl_c_during_an_import_stops_the_command(package, capsys):
    (package / "failing.py").write_text("raise KeyboardInterrupt")
    Path("options.yml").touch()
    assert main(["cost", "-opt", "options.yml", "--plugin", "failing"]) == 130


PACKABLE = """
from basicsr.utils.registry import ARCH_REGISTRY
from bidiffsr_arch.archs import BBCUNet
from bidiffsr_arch.packed import PackedBBCUNet, packs


@ARCH_REGISTRY.register()
class PackableNetwork(BBCUNet):
    pass


@packs(PackableNetwork)
class PackedPackable(PackedBBCUNet):
    pass
"""


@pytest.fixture
def packable(package, monkeypatch):
    """A module in ``sys.path`` with a network and its packer."""
    before = dict(packers._PACKERS)
    (package / "packable.py").write_text(PACKABLE)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(plugins, "_named", [])
    yield
    packers._PACKERS.clear()
    packers._PACKERS.update(before)
    ARCH_REGISTRY._obj_map.pop("PackableNetwork", None)
    sys.modules.pop("packable", None)


def test_packers_of_the_entry_point_group_are_found(packable, monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("packable", "packable", group)])
    monkeypatch.setattr(plugins, "_failed", None)
    assert packers.architecture_named("BBCUNet") is not None and plugins._failed is None
    assert packers.architecture_named("PackableNetwork").__name__ == "PackableNetwork"


def test_bench_imports_the_plugins_of_an_option_file_in_its_processes_too(packable, capsys):
    Path("options.yml").write_text(
        f"base: {shipped_path('test_BBCUNet_x4')}\nplugins: [packable]\n"
        "network_g: {type: PackableNetwork, num_feat: 8, num_block: 1}\n"
    )
    arguments = ["--size", "8", "--rounds", "1", "--threads", "1", "--backend", "torch", "--json"]
    assert main(["bench", "-opt", "options.yml", *arguments]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["PackableNetwork float32", "PackableNetwork packed"]
    assert all(row["peak_bytes"] > 0 for row in rows)


HARMLESS = {
    "one that prints": "print('hello')",
    "one that registers nothing": "value = 3",
    "one without content": "",
}


@pytest.mark.parametrize("case", HARMLESS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_plugin_may_do_nothing_useful(package, capsys, monkeypatch, case, times):
    """Its output does not mix with a command's, and it may be named twice."""
    monkeypatch.delitem(sys.modules, "harmless", raising=False)
    (package / "harmless.py").write_text(HARMLESS[case])
    arguments = ["--plugin", "harmless"] * times
    assert main(["cost", "-opt", str(shipped_path("test_SR3_x4")), "--json", *arguments]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["params_m"] > 0
    assert said.err.count("hello") == (case == "one that prints")


EVERYTHING = """
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from torch import nn
from torch.optim.lr_scheduler import LRScheduler


@ARCH_REGISTRY.register()
class PluginNetwork(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))


@DATASET_REGISTRY.register()
class PluginDataset(PairedImageDataset):
    def __init__(self, opt):
        assert opt["own_key"] == 7
        super().__init__(opt)


@LOSS_REGISTRY.register()
class PluginLoss(nn.Module):
    def __init__(self, power, loss_weight=1.0):
        super().__init__()
        self.power = power

    def forward(self, pred, target, weight=None, **kwargs):
        return ((pred - target).abs() ** self.power).mean()


@METRIC_REGISTRY.register()
def calculate_plugin(img, img2, crop_border, offset=0.5, **kwargs):
    return 1 + offset


@MODEL_REGISTRY.register()
class PluginModel(SRModel):
    pass


class PluginLR(LRScheduler):
    def __init__(self, optimizer, slope, last_epoch=-1):
        self.slope = slope
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [rate * self.slope for rate in self.base_lrs]
"""
REGISTRIES = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)


@pytest.fixture
def everything(workplace, run_options, monkeypatch) -> Iterator[dict[str, Any]]:
    """Options of a run that uses a plugin's network, data set, loss, metric and scheduler."""
    before = [dict(registry._obj_map) for registry in REGISTRIES]
    Path("everything.py").write_text(EVERYTHING)
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = run_options | {"model_type": "SRModel", "network_g": {"type": "PluginNetwork", "width": 2}}
    del options["beta_schedule"]
    for data in options["datasets"].values():
        data |= {"type": "PluginDataset", "own_key": 7}
    options["train"] |= {"pixel_opt": {"type": "PluginLoss", "power": 2}, "total_iter": 2,
                         "scheduler": {"type": "PluginLR", "slope": 0.5}}  # fmt: skip
    options["val"] |= {"val_freq": 2, "metrics": {"own": {"type": "calculate_plugin", "crop_border": 0}}}
    yield options
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._obj_map.clear()
        registry._obj_map.update(entries)
    sys.modules.pop("everything", None)


@pytest.mark.parametrize("model", ["SRModel", "PluginModel"])
def test_all_that_a_plugin_registers_is_used_by_every_command(everything, capsys, model):
    options, plugin = everything | {"model_type": model}, ("--plugin", "everything")
    assert basicsr("train", options, *plugin, "--dry-run") == 0
    assert basicsr("train", options, *plugin) == 0
    assert "# own: 1.5000" in log_of("experiments/tiny") and "lr:(5.000e-05,)" in log_of("experiments/tiny")
    assert basicsr("test", options, *plugin) == 0
    assert "# own: 1.5000" in log_of("results/tiny")
    capsys.readouterr()
    assert main(["cost", "-opt", "options.yml", "--json", *plugin]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["params_m"] == pytest.approx((3 * 2 * 9 + 2 + 2 * 12 * 9 + 12) / 1e6)


MISTAKES = {
    "network": (("network_g", "widht"), 2, "unknown key 'widht' in network_g:; did you mean 'width'"),
    "loss": (("train", "pixel_opt", "pow"), 2, "unknown key 'pow' in train: pixel_opt:; did you mean 'power'"),
    "scheduler": (("train", "scheduler", "slop"), 2, "unknown key 'slop' in train: scheduler:; did you mean 'slope'"),
    "optimizer": (("train", "optim_g", "type"), "PluginOptimizer", "train: optim_g: type to be one of Adam, AdamW"),
    "missing metric": (("val", "metrics", "own", "type"), "calculate_plug", "did you mean 'calculate_plugin'"),
    "missing scheduler": (("train", "scheduler", "type"), "PluginL", "did you mean 'PluginLR'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_wrong_options_of_a_plugin_s_classes_are_one_line(everything, capsys, case):
    place, value, message = MISTAKES[case]
    changed = bad_input.changed(everything, place, value)
    assert basicsr("train", changed, "--plugin", "everything", "--dry-run") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("arguments", [["train", "--dry-run"], ["train"], ["test"], ["cost"]])
def test_a_plugin_that_is_not_named_is_asked_for(everything, capsys, arguments):
    assert basicsr(arguments[0], everything, *arguments[1:]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("basicsr: ") and "Plugin" in lines[0]


def test_plugins_as_text_are_one_line(everything, capsys):
    assert basicsr("train", everything | {"plugins": "everything"}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "expected plugins to be a list of strings, or ~, got 'everything'" in lines[0]

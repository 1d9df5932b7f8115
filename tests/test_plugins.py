"""Packages that register with BasicSR: broken ones are reported and skipped, and users can name further ones."""

import sys
from importlib.metadata import EntryPoint, entry_points

import pytest
from basicsr.utils.registry import ARCH_REGISTRY

from bidiffsr_arch import plugins
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import build_network, find_architecture

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


@pytest.mark.parametrize("name", ["no_such_module_here", "../late_networks", "late_networks;", ""])
def test_a_module_that_cannot_be_imported_is_one_line(package, name):
    with pytest.raises(InputError, match=r"^plugin .* cannot be imported: .*; install it, or correct its name$"):
        plugins.import_plugins([name], {})
    assert "late_networks" not in sys.modules


@pytest.mark.parametrize("listed", ["hat", [3]])
def test_plugins_are_a_list(listed):
    with pytest.raises(InputError, match=r"expected plugins: to be a list of modules"):
        plugins.import_plugins((), {"plugins": listed})


@pytest.mark.parametrize("content", ["raise RuntimeError('two\\nlines')", "import sys; sys.exit(3)", "def (:", "1 / 0"])
def test_a_plugin_may_fail_in_any_way(package, monkeypatch, capsys, content):
    """A module that ends the program included, as a script that parses arguments does when it is imported."""
    (package / "failing.py").write_text(content)
    with pytest.raises(InputError, match=r"^plugin failing cannot be imported: .*; install it"):
        plugins.import_plugins(["failing"], {})
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("bad", "failing", group)])
    monkeypatch.setattr(plugins, "_failed", None)
    plugins.load_plugins()
    assert capsys.readouterr().err.startswith("basicsr: plugin 'bad' is skipped: ")

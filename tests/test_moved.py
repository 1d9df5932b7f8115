"""Old module paths lead to the new modules, with a warning that names both."""

import sys
from importlib import import_module

import pytest

from bidiffsr_arch.moved import MOVED, RENAMED


@pytest.fixture(autouse=True)
def not_imported(monkeypatch):
    """Old modules are imported anew by each test."""
    for name in list(sys.modules):
        if name.removeprefix("bidiffsr_arch.") in MOVED:
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_has_the_names_of_the_new_modules(old):
    paths = [MOVED[old]] if isinstance(MOVED[old], str) else MOVED[old]
    with pytest.warns(DeprecationWarning, match=rf"bidiffsr_arch\.{old} is now bidiffsr_arch\.{paths[0]}"):
        module = import_module(f"bidiffsr_arch.{old}")
    for new in (import_module(f"bidiffsr_arch.{path}") for path in paths):
        own = [name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__]
        own += getattr(new, "__all__", [])
        assert own and all(getattr(module, name) is getattr(new, name) for name in own)
    with pytest.raises(AttributeError, match=f"no attribute 'no_such_name'; it is now bidiffsr_arch.{paths[0]}"):
        _ = module.no_such_name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from bidiffsr_arch.models import BIDiffSRModel", "BIDiffSRModel"),
        ("from bidiffsr_arch.models.spread_model import SpreadSRModel", "ValidatedSRModel"),
        ("from bidiffsr_arch.checkpoint import read_checkpoint", "read_parameters"),
        ("from bidiffsr_arch.models.picture import enlarge", "upsample"),
        ("from bidiffsr_arch.data.files import read_picture", "read_image"),
        ("from bidiffsr_arch.option_file import load_options", "load_options"),
        ("from bidiffsr_arch.option_file import read_yaml", "read_yaml"),
        ("from bidiffsr_arch.option_file import shipped_path", "shipped_path"),
        ("from bidiffsr_arch.packed.workspace import Workspace", "Arena"),
    ],
)
def test_names_are_found_at_their_old_paths(line, name):
    found = {}
    with pytest.warns(DeprecationWarning):
        exec(line, found)  # noqa: S102
    assert found[line.split()[-1]].__name__ == name


def test_every_new_name_of_a_renamed_one_is_in_a_new_module():
    targets = {path for new in MOVED.values() for path in ([new] if isinstance(new, str) else new)}
    modules = [import_module(f"bidiffsr_arch.{path}") for path in targets]
    assert [new for new in RENAMED.values() if not any(hasattr(module, new) for module in modules)] == []


def test_other_unknown_modules_stay_unknown():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_module("bidiffsr_arch.no_such_module")

"""Old module paths lead to the new modules, with a warning that names both."""

import sys
from importlib import import_module

import pytest

from bidiffsr_arch.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_is_the_new_module(old, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"bidiffsr_arch.{old}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(DeprecationWarning, match=rf"bidiffsr_arch\.{old} is now bidiffsr_arch\.{MOVED[old]}"):
        module = import_module(f"bidiffsr_arch.{old}")
    assert module is import_module(f"bidiffsr_arch.{MOVED[old]}")


def test_the_models_of_an_option_file_are_found_under_their_old_path():
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("bidiffsr_arch.models", None)
        from bidiffsr_arch.models import BIDiffSRModel
    assert BIDiffSRModel.__module__ == "bidiffsr_arch.training.bidiffsr_model"


def test_other_unknown_modules_stay_unknown():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_module("bidiffsr_arch.no_such_module")

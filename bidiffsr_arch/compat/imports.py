"""Patches that make `import basicsr` work with current versions of torchvision and Python."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_libraries: list[Any] = []  # an operator is declared as long as its Library object exists


def torchvision_operators() -> bool:
    """torchvision's CUDA build cannot load its operators into a CPU torch: they are declared."""
    try:
        importlib.import_module("torchvision")
        return False
    except ModuleNotFoundError:  # reported by modules that need it
        return False
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    library = importlib.import_module("torch.library").Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    importlib.import_module("torchvision")
    return True


def torchvision_functional_tensor() -> bool:
    """BasicSR imports a module that torchvision 0.17 removed: its successor takes its name."""
    gone = "torchvision.transforms.functional_tensor"
    if gone in sys.modules or importlib.util.find_spec(gone):
        return False
    sys.modules[gone] = importlib.import_module("torchvision.transforms.functional")
    return True


def distutils_version() -> bool:
    """BasicSR compares versions with distutils, which Python 3.12 removed: packaging's Version replaces it."""
    try:
        importlib.import_module("distutils.version")
        return False
    except ImportError:
        module = ModuleType("distutils.version")
    vars(module)["LooseVersion"] = importlib.import_module("packaging.version").Version
    sys.modules.setdefault("distutils", ModuleType("distutils"))
    sys.modules["distutils.version"] = module
    return True

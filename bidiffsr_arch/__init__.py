"""BI-DiffSR for BasicSR: a diffusion UNet with 1-bit weights, its model class and metrics.

After ``import bidiffsr_arch``, BasicSR's own trainer runs the whole pipeline: when BasicSR is imported, before or after
this package, its defects are patched (`bidiffsr_arch.compat`) and this package's classes are registered. Everything
else is imported when it is used, torch and BasicSR included; inference never imports BasicSR.
"""

import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bidiffsr_arch import threads
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.import_hooks import ImportHooks
from bidiffsr_arch.moved import MovedModules
from bidiffsr_arch.registration import NEED_BASICSR, patched_and_registered, register

if TYPE_CHECKING:
    from bidiffsr_arch.archs import BIDiffSRUNet, SR3UNet
    from bidiffsr_arch.metrics import count_cost
    from bidiffsr_arch.packed import load_packed, pack, pack_layer
    from bidiffsr_arch.upscale import Upscaler

__all__ = [
    "BIDiffSRUNet",
    "InputError",
    "SR3UNet",
    "Upscaler",
    "__version__",
    "count_cost",
    "load_packed",
    "pack",
    "pack_layer",
    "register",
]
__version__ = "0.1.0"

# Modules of the names that are imported on first use.
_HOMES = {
    "BIDiffSRUNet": "bidiffsr_arch.archs",
    "SR3UNet": "bidiffsr_arch.archs",
    "Upscaler": "bidiffsr_arch.upscale",
    "count_cost": "bidiffsr_arch.metrics",
    "load_packed": "bidiffsr_arch.packed",
    "pack": "bidiffsr_arch.packed",
    "pack_layer": "bidiffsr_arch.packed",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.meta_path.insert(0, MovedModules())
_hooks = {"basicsr": patched_and_registered}
for _module, _library in threads.LIBRARIES.items():
    if _module in sys.modules:
        threads.loaded_before(_library)
    else:
        _hooks[_module] = partial(threads.waiting_policy, _library)
ImportHooks(_hooks, prerequisites=dict.fromkeys(NEED_BASICSR, "basicsr")).install()

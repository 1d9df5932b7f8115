"""Old paths of modules that have moved; they work until version 0.2.0, with a DeprecationWarning."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "bidiffsr_arch"
# Old path -> new path, both below the package.
MOVED = {
    "models": "training",
    "models.bicubic_model": "training.bicubic_model",
    "models.bidiffsr_model": "training.bidiffsr_model",
    "models.diffusion": "diffusion.schedule",
    "models.picture": "diffusion.images",
    "models.stepping": "training.stepping",
    "models.super_resolution": "diffusion.super_resolution",
    "data.lpips_weights": "metrics.lpips_weights",
    "data.sampling": "training.sample_order",
    "packed.benchmark": "bench.timing",
    "upscale.weights": "networks",
}


class MovedModules(MetaPathFinder, Loader):
    """Imports the new module under its old path, too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an old path, None for all others."""
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == PACKAGE and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and put the new module in the old one's place."""
        old = module.__name__
        new = f"{PACKAGE}.{MOVED[old.partition('.')[2]]}"
        warnings.warn(f"{old} is now {new}; the old path ends with version 0.2.0", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)

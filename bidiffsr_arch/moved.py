"""Old paths of modules that have moved; they work until version 0.2.0, with a DeprecationWarning."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "bidiffsr_arch"
# Old path -> new path, both below the package. A module that was split has several: a name is looked up in their order.
MOVED: dict[str, str | tuple[str, ...]] = {
    "checkpoint": "parameters",
    "compat.resume": "training.resume",
    "compat.saving": "training.saving",
    "data.files": "files",
    "data.lpips_weights": "metrics.lpips_weights",
    "data.paired_dataset": "training.paired_dataset",
    "data.sampling": "training.sample_order",
    "models": "training",
    "models.bicubic_model": "training.bicubic_model",
    "models.bidiffsr_model": "training.bidiffsr_model",
    "models.checkpoint": "parameters",
    "models.diffusion": "diffusion.schedule",
    "models.measured_model": "training.validation",
    "models.picture": "diffusion.images",
    "models.random_states": "training.random_states",
    "models.resumable_model": "training.validation",
    "models.retention": "training.retention",
    "models.spread_model": "training.validation",
    "models.stepping": "training.stepping",
    "models.super_resolution": "diffusion.super_resolution",
    "models.updating": "training.early_updates",
    "option_check": "training.option_check",
    "option_file": ("config.file", "config.yaml", "config.shipped"),
    "option_kinds": "config.kinds",
    "packed.benchmark": ("bench.timing", "bench.layers", "bench.machine"),
    "packed.numba_backend": "packed.backends.numba_backend",
    "packed.torch_backend": "packed.backends.torch_backend",
    "packed.workspace": "packed.arena",
    "plots.pictures": "plots.images",
    "saved_file": ("training.checkpoint_file", "files"),
    "stopping": "training.signals",
    "upscale.weights": "networks",
}
# Names that have changed with their modules: old -> new.
RENAMED = {
    "MeasuredSRModel": "ValidatedSRModel",
    "ResumableSRModel": "ValidatedSRModel",
    "SpreadSRModel": "ValidatedSRModel",
    "Workspace": "Arena",
    "enlarge": "upsample",
    "read_checkpoint": "read_parameters",
    "read_picture": "read_image",
    "write_picture": "write_image",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds modules by their old paths; each forwards to the modules that have its names now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an old path, None for all others."""
        package, _, name = fullname.partition(".")
        if package != PACKAGE or name not in MOVED:
            return None
        has_children = any(other.startswith(f"{name}.") for other in MOVED)
        return ModuleSpec(fullname, self, is_package=has_children)

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and make the module forward to the new ones."""
        old = module.__name__
        new = MOVED[old.partition(".")[2]]
        paths = [f"{PACKAGE}.{path}" for path in ([new] if isinstance(new, str) else new)]
        message = f"{old} is now {' and '.join(paths)}; the old path ends with version 0.2.0"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        modules = [import_module(path) for path in paths]

        def forward(name: str) -> Any:
            for wanted in (name, RENAMED.get(name, name)):
                for target in modules:
                    if hasattr(target, wanted):
                        return getattr(target, wanted)
            raise AttributeError(f"module {old!r} has no attribute {name!r}; it is now {' and '.join(paths)}")

        names = {name for target in modules for name in getattr(target, "__all__", dir(target)) if name[0] != "_"}
        module.__dict__.update(__doc__=message, __getattr__=forward, __all__=sorted(names))

"""Patch BasicSR and register this package's classes in its registries when BasicSR is imported."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from bidiffsr_arch import compat

# BasicSR's registry -> module -> names to register; if empty, those in the module's __all__.
ENTRIES: dict[str, dict[str, tuple[str, ...]]] = {
    "ARCH_REGISTRY": {"bidiffsr_arch.archs": ()},
    "MODEL_REGISTRY": {"bidiffsr_arch.training": ("BIDiffSRModel", "BicubicModel")},
    "DATASET_REGISTRY": {"bidiffsr_arch.training": ("MultiPairedImageDataset",)},
    "LOSS_REGISTRY": {"bidiffsr_arch.metrics.lpips_loss": ("LPIPSLoss",)},
    "METRIC_REGISTRY": {
        "bidiffsr_arch.metrics": ("calculate_iqa", "calculate_lpips", "calculate_params", "calculate_ops")
    },
}
# Modules of this package that import BasicSR at module level.
NEED_BASICSR = (*compat.AFTER_BASICSR, *ENTRIES["MODEL_REGISTRY"])


@contextmanager
def patched_and_registered() -> Iterator[None]:
    """Apply the patches needed before BasicSR's import, and after it the others; then register."""
    if warning := compat.unsupported_python(sys.version_info[:3]):
        print(warning, file=sys.stderr)
    compat.apply(compat.BEFORE_BASICSR)
    yield
    compat.apply(compat.AFTER_BASICSR)
    register()


def register() -> None:
    """Register this package's classes and functions in BasicSR's registries; a second call changes nothing.

    After `import bidiffsr_arch` this happens automatically when BasicSR is imported. A name that another package has
    registered is not replaced; a warning says so.
    """
    registries = import_module("basicsr.utils.registry")
    for registry_name, modules in ENTRIES.items():
        registry = getattr(registries, registry_name)
        for path, names in modules.items():
            module = import_module(path)
            for name in names or module.__all__:
                entry = getattr(module, name)
                if name not in registry:
                    registry.register(entry)
                elif (owner := registry.get(name).__module__) != entry.__module__:
                    warnings.warn(f"{name} is already registered by {owner}, and is not replaced", stacklevel=2)

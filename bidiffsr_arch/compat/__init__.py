"""The only place that knows of defects in BasicSR (1.4.2) and of its quarrels with today's torch and torchvision.

A cure is one small function. Its first line says what was wrong and what is done; it does nothing where the defect is
absent, and returns whether it did something. Files of other packages on disk are never touched.
"""

import importlib
import sys
from collections.abc import Callable

from bidiffsr_arch.compat import imports

Cure = Callable[[], bool]

OLDEST, NEWEST = (3, 10), (3, 12)

BEFORE_BASICSR: tuple[Cure, ...] = (
    imports.torchvision_operators,
    imports.torchvision_functional_tensor,
    imports.distutils_version,
)
# Cures of BasicSR's own modules, which can be imported only after the ones above. Their order is the order in which
# they wrap: the checks of options come after the option file has been read.
AFTER_BASICSR = {
    "bidiffsr_arch.compat.registry": ("unknown_names",),
    "bidiffsr_arch.compat.options": (
        "command_line",
        "own_roots",
        "gpus_without_cuda",
        "missing_data",
        "missing_suffix",
        "impossible_loading",
        "stray_folders",
        "drawn_seed",
        "archive_names",
    ),
    "bidiffsr_arch.compat.validation": ("last_iteration", "images_without_gt", "normalized_images"),
    "bidiffsr_arch.compat.optimization": ("more_optimizers", "more_schedulers", "reached_rate"),
    "bidiffsr_arch.compat.distributed": ("distributed_start", "distributed_slurm", "distributed_model"),
    "bidiffsr_arch.compat.data": (
        "worker_seeds",
        "prefetch_errors",
        "lazy_prefetcher",
        "named_content",
        "broken_pictures",
        "unpaired_folders",
        "mismatched_crops",
        "silent_crops",
    ),
    "bidiffsr_arch.training.saving": ("whole_checkpoints",),
    "bidiffsr_arch.training.resume": ("resume_state", "resumed_epochs"),
}

_applied: dict[str, str] = {}
_done = False


def unsupported_python(version: tuple[int, ...]) -> str | None:
    """One line for a Python that BasicSR cannot be installed on or that was not tested, else None."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    span, found = (".".join(map(str, pair)) for pair in (OLDEST, version))
    return f"bidiffsr_arch: expected Python {span} to {'.'.join(map(str, NEWEST))}, got {found}; things may fail"


def _heal(cure: Cure) -> None:
    if cure():
        _applied[cure.__name__] = cure.__doc__.splitlines()[0]


def apply() -> None:
    """Import BasicSR and cure what needs it; a second call does nothing."""
    global _done
    if _done:
        return
    if warning := unsupported_python(sys.version_info[:3]):
        print(warning, file=sys.stderr)
    for cure in BEFORE_BASICSR:
        _heal(cure)
    importlib.import_module("basicsr")
    for name_of_module, names in AFTER_BASICSR.items():
        module = importlib.import_module(name_of_module)
        for name in names:
            _heal(getattr(module, name))
    _done = True


def applied() -> list[tuple[str, str]]:
    """(name, description) of each cure that was needed here, in the order of application."""
    return list(_applied.items())

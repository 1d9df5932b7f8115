"""Patches for defects of BasicSR 1.4.2, and for APIs of torch, torchvision and Python that it uses and that are gone.

A patch is a small function. The first line of its docstring has the defect and, after the colon, the new behaviour. It
does nothing if the defect is absent, and returns whether it changed something. Files of other packages on disk are
never changed.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module

from bidiffsr_arch.errors import INSTALL_BASICSR, InputError, typed_line

__all__ = ["Patches", "applied", "apply", "require_basicsr", "unsupported_python"]

Patches = Mapping[str, Sequence[str]]
"""Module -> names of its patches, in the order in which they are applied."""

OLDEST, NEWEST = (3, 10), (3, 14)

BEFORE_BASICSR: Patches = {
    "bidiffsr_arch.compat.imports": (
        "torchvision_operators",
        "torchvision_functional_tensor",
        "distutils_version",
    ),
}
# Patches of BasicSR's own modules. Their order is the order in which they wrap: options are checked after the option
# file has been read.
AFTER_BASICSR: Patches = {
    "bidiffsr_arch.compat.outputs": ("full_log_disk", "whole_images"),
    "bidiffsr_arch.compat.registry": ("unknown_names", "names_of_others"),
    "bidiffsr_arch.compat.options": (
        "command_line",
        "own_roots",
        "gpus_without_cuda",
        "missing_data",
        "possible_options",
        "random_weights",
        "missing_keys",
        "stray_folders",
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
        "broken_images",
        "unpaired_folders",
        "mismatched_crops",
        "silent_crops",
    ),
    "bidiffsr_arch.compat.pairs": ("several_folders", "suffixed_databases"),
    "bidiffsr_arch.compat.realesrgan": (
        "degradation_without_cuda",
        "blurs_without_cuda",
        "listed_images",
        "replaced_images",
    ),
}

_applied: dict[str, str] = {}


def apply(patches: Patches) -> None:
    """Apply patches that have not been applied yet."""
    for module_name, names in patches.items():
        module = import_module(module_name)
        for name in names:
            patch = getattr(module, name)
            if name not in _applied and patch():
                _applied[name] = " ".join(patch.__doc__.partition("\n\n")[0].split())


def applied() -> list[tuple[str, str]]:
    """(name, description) of each patch that was needed here, in the order of application."""
    return list(_applied.items())


def require_basicsr(purpose: str) -> None:
    """Import BasicSR.

    Args:
        purpose: the feature that needs it, for the message.
    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        import_module("basicsr")
    except ModuleNotFoundError as error:
        if error.name != "basicsr":
            raise _unusable(purpose, error) from error
        raise InputError(f"{purpose} needs BasicSR, which is not installed; {INSTALL_BASICSR}") from error
    except Exception as error:  # its import and those of its dependencies may raise anything
        raise _unusable(purpose, error) from error


def _unusable(purpose: str, error: Exception) -> InputError:
    reason = typed_line(error)
    return InputError(f"{purpose} needs BasicSR, which cannot be imported ({reason}); repair it: {INSTALL_BASICSR}")


def unsupported_python(version: tuple[int, ...]) -> str | None:
    """One line for a Python that was not tested, else None."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    span, found = (".".join(map(str, pair)) for pair in (OLDEST, version))
    return f"bidiffsr_arch: expected Python {span} to {'.'.join(map(str, NEWEST))}, got {found}; things may fail"

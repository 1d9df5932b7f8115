"""BI-DiffSR for BasicSR: importing this package registers a 1-bit diffusion UNet, its model class and metrics.

After ``import bidiffsr_arch``, BasicSR's own trainer runs the whole pipeline. Defects of BasicSR 1.4.2 that stand in
the way on today's torch are cured first (`bidiffsr_arch.compat`).
"""

import warnings
from typing import TYPE_CHECKING, Any

from bidiffsr_arch import compat

if TYPE_CHECKING:
    from bidiffsr_arch.upscale import Upscaler as Upscaler

__version__ = "0.1.0"

compat.apply()


def register() -> None:
    """Enter this package's classes and functions in BasicSR's registries; calling it again changes nothing.

    A name that another package has registered before stays that package's, and one warning says so.
    """
    from basicsr.utils import registry

    from bidiffsr_arch.archs import BBCUNet, BIDiffSRUNet, SR3UNet
    from bidiffsr_arch.data.paired_dataset import MultiPairedImageDataset
    from bidiffsr_arch.metrics import calculate_lpips, calculate_ops, calculate_params
    from bidiffsr_arch.training import BicubicModel, BIDiffSRModel

    entries = {
        registry.ARCH_REGISTRY: (BBCUNet, BIDiffSRUNet, SR3UNet),
        registry.MODEL_REGISTRY: (BIDiffSRModel, BicubicModel),
        registry.DATASET_REGISTRY: (MultiPairedImageDataset,),
        registry.METRIC_REGISTRY: (calculate_lpips, calculate_params, calculate_ops),
    }
    for table, objects in entries.items():
        for entry in objects:
            if entry.__name__ not in table:
                table.register(entry)
            elif (owner := table.get(entry.__name__).__module__) != entry.__module__:
                warnings.warn(f"{entry.__name__} is already registered by {owner}, which stays", stacklevel=2)


def __getattr__(name: str) -> Any:
    """`Upscaler`, imported when it is asked for: training needs none of it."""
    if name != "Upscaler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bidiffsr_arch.upscale import Upscaler

    return Upscaler


register()

"""Model classes for BasicSR: train and sample by diffusion, or upsample by bicubic interpolation."""

from bidiffsr_arch import compat
from bidiffsr_arch.training.bicubic_model import BicubicModel
from bidiffsr_arch.training.bidiffsr_model import BIDiffSRModel

__all__ = ["BIDiffSRModel", "BicubicModel"]

compat.apply({
    "bidiffsr_arch.training.saving": ("whole_checkpoints",),
    "bidiffsr_arch.training.resume": ("drawn_seed", "resume_state", "resumed_epochs", "resumed_models"),
    "bidiffsr_arch.training.degradation": ("degrading_models",),
    "bidiffsr_arch.training.validation": ("metric_directions",),
    "bidiffsr_arch.training.leaving": ("stopping_between_iterations", "validation_apart"),
})  # fmt: skip

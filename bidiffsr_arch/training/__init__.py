"""Model classes for BasicSR (training and sampling by diffusion, bicubic upsampling) and the reference's data set."""

from bidiffsr_arch import compat
from bidiffsr_arch.training.bicubic_model import BicubicModel
from bidiffsr_arch.training.bidiffsr_model import BIDiffSRModel
from bidiffsr_arch.training.paired_dataset import MultiPairedImageDataset

__all__ = ["BIDiffSRModel", "BicubicModel", "MultiPairedImageDataset"]

compat.apply({
    "bidiffsr_arch.training.saving": ("whole_checkpoints",),
    "bidiffsr_arch.training.resume": ("drawn_seed", "resume_state", "resumed_epochs", "resumed_models"),
    "bidiffsr_arch.training.degradation": ("degrading_models",),
    "bidiffsr_arch.training.validation": ("metric_directions",),
    "bidiffsr_arch.training.stopping": ("stopping_between_iterations", "validation_apart"),
    "bidiffsr_arch.training.network_files": ("network_files",),
    "bidiffsr_arch.training.packed_networks": ("packed_validation",),
})  # fmt: skip

"""Model classes for BasicSR: train and sample by diffusion, or enlarge by bicubic interpolation."""

from bidiffsr_arch.models.bicubic_model import BicubicModel
from bidiffsr_arch.models.bidiffsr_model import BIDiffSRModel

__all__ = ["BIDiffSRModel", "BicubicModel"]

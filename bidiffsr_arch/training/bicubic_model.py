"""Bicubic interpolation as a model, for the Bicubic row of the tables."""

from typing import Any

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from torch import Tensor

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.validation import ValidatedSRModel


class BicubicModel(ValidatedSRModel):
    """MATLAB's ``imresize(uint8, scale, 'bicubic')``, without a network.

    Raises:
        InputError: it is used for training.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["is_train"]:
            raise InputError("expected a network to train, got model_type: BicubicModel; use it with `basicsr test`")
        BaseModel.__init__(self, opt)

    def super_resolve(self) -> Tensor:
        """self.lq (B, 3, h, w) in [0, 1], upsampled by the option ``scale``."""
        images = (self.lq.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        upsampled = np.stack([imresize(image, self.opt["scale"]) for image in images])
        return torch.from_numpy(upsampled).permute(0, 3, 1, 2).to(self.device).float() / 255

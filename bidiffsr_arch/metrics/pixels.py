"""Images as BasicSR passes them to metrics, as the tensors that networks take."""

import numpy as np
import torch

from bidiffsr_arch.errors import InputError


def height_width_channels(image: np.ndarray, input_order: str) -> np.ndarray:
    """(H, W), (H, W, C) or, by `input_order`, (C, H, W) -> (H, W, C).

    Raises:
        InputError: `input_order` is neither HWC nor CHW.
    """
    if input_order not in ("HWC", "CHW"):
        raise InputError(f"expected input_order to be HWC or CHW, got {input_order!r}")
    if image.ndim == 2:
        return image[..., None]
    return image.transpose(1, 2, 0) if input_order == "CHW" else image


def rgb(image: np.ndarray, crop_border: int, metric: str) -> torch.Tensor:
    """(H, W, 1 or 3), BGR, without `crop_border` pixels at each edge -> (1, 3, H', W') float32, RGB, the same values.

    Raises:
        InputError: another number of channels; `metric` names the metric in the message.
    """
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise InputError(f"expected images with 1 or 3 channels for {metric}, got {channels}")
    image = image[crop_border : height - crop_border, crop_border : width - crop_border, ::-1]
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)

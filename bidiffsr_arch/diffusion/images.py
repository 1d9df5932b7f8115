"""Pictures as the networks take them: enlarged, padded, and as a residual or whole."""

import torch
import torch.nn.functional as F
from torch import Tensor


def enlarge(picture: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement with cv2.INTER_CUBIC's kernel (a = -0.75), (B, C, h, w) -> (B, C, h * scale, w * scale), not
    clipped."""
    return F.interpolate(picture, scale_factor=scale, mode="bicubic", align_corners=False)


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Reflect at the bottom and right until height and width are multiples, repeating the reflection where the picture
    is small.

    Args:
        picture: (B, C, H, W), H, W >= 1.
    """
    rows, columns = (_reflection(size, multiple, picture.device) for size in picture.shape[-2:])
    return picture[..., rows[:, None], columns]


def _reflection(size: int, multiple: int, device: torch.device) -> Tensor:
    """Indices 0, 1, …, size-1, size-2, …, 0, 1, … as many as the next multiple of `multiple`."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-(-size // multiple) * multiple, device=device) % period
    return torch.where(index < size, index, period - index)

"""LPIPS as a loss of BasicSR's models: `perceptual_opt: {type: LPIPSLoss, loss_weight: 1}`."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from bidiffsr_arch.metrics.grid import grid_distance
from bidiffsr_arch.metrics.lpips import load_lpips

# Pixels between two positions of the first convolution of AlexNet, the coarsest of the three networks.
STRIDE = 4


class LPIPSLoss(nn.Module):
    """The perceptual distance of Zhang et al. (CVPR 2018), as a replacement of BasicSR's PerceptualLoss.

    It directly minimises `calculate_lpips` with the same `net`, so that this metric overrates networks trained with it.
    Report the loss with such numbers, or measure with another `net`.

    In training, images are shifted by 0 to 3 pixels, drawn per batch: AlexNet sees each fourth position, and crops for
    x4 begin at multiples of four. Without the shift, networks that work on patches (`patch_size`, PixelShuffle) learn a
    pattern with the period of a patch, which looks woven and which the loss does not see.

    `grid_weight` adds a loss of blocking artifacts at the borders of patches. They are visible in smooth areas, and
    LPIPS hardly changes with them.

    Args:
        loss_weight: factor of the distance.
        net: "alex", "vgg" or "squeeze".
        weights: torchvision's weights file of that network; if None, it is searched for as for `calculate_lpips`.
        grid_weight: factor of `grid_distance`, returned as the style term (``l_style`` in BasicSR's log); 0: none.
        grid_period: its period in pixels, the network's `patch_size`; sides of the images are multiples of it.
    Raises:
        WeightsMissing: no weights were found, or the file is not of this network.
        InputError: an unknown network; in `forward`, images whose sides are no multiples of `grid_period`.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        net: str = "alex",
        weights: str | None = None,
        grid_weight: float = 0.0,
        grid_period: int = 4,
    ) -> None:
        super().__init__()
        self.loss_weight, self.grid_weight, self.grid_period = loss_weight, grid_weight, grid_period
        self.network = deepcopy(load_lpips(net, weights, "cpu")).requires_grad_(False)

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weighted mean distance of RGB images (N, 3, H, W) in [0, 1]; the weighted grid distance, or None."""
        grid = self.grid_weight * grid_distance(x, gt, self.grid_period) if self.grid_weight else None
        if self.training:
            left, top = torch.randint(STRIDE, (2,)).tolist()
            # All shifts give one size, so that cuDNN chooses its algorithms once.
            sides = (left, STRIDE - 1 - left, top, STRIDE - 1 - top)
            x, gt = (nn.functional.pad(images, sides, mode="reflect") for images in (x, gt))
        return self.loss_weight * self.network(2 * x - 1, 2 * gt - 1).mean(), grid

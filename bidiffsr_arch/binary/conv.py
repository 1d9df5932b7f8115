"""A convolution of 1-bit activations with 1-bit weights, and what each binarizer puts around it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidiffsr_arch.binary.bank import TimestepBias, TimestepRPReLU
from bidiffsr_arch.binary.methods import Binarizer
from bidiffsr_arch.binary.sign import sign
from bidiffsr_arch.binary.weight import WEIGHTS

# Small first weights let signs settle within the first hundreds of steps of Adam at 1e-4; sign and scale are all that
# training sees.
INITIAL_WEIGHT = 1e-3


class BinaryWeightConv2d(nn.Module):
    """Convolution with binarized weights, zero padding (a padded tap adds 0), stride 1, no bias.

    Args:
        kernel_size: odd.
        weight: a key of `WEIGHTS`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight: str) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.binarize = weight
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        nn.init.uniform_(self.weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)

    def binary_weight(self) -> Tensor:
        """``scale * ±1``, shape (C_out, C_in, k, k)."""
        return WEIGHTS[self.binarize](self.weight, self.progress)

    def forward(self, a: Tensor) -> Tensor:
        """a: (B, C_in, H, W) of ±1 -> (B, C_out, H, W)."""
        return F.conv2d(a, self.binary_weight(), padding=self.kernel_size // 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, weight={self.binarize}"


class BinaryConv2d(nn.Module):
    """``shortcut + RPReLU_k(BatchNorm(K * conv(sign(x + b_k), w_b)))``, each part where the binarizer has it.

    With the row ``bidiffsr`` this is the paper's BI-Conv (Chen et al. 2024, eq. 4 to 7).

    Args:
        kernel_size: odd; the picture keeps its size.
        method: a row of `BINARIZERS`.
        shift_groups: number K of biases before the sign (TaR); 1 is one bias for all timesteps.
        rprelu_groups: number K of RPReLUs after the convolution (TaA).
        identity: add the input where the method has a shortcut and the widths match.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        method: Binarizer,
        *,
        shift_groups: int = 1,
        rprelu_groups: int = 1,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.method = method
        self.shortcut = method.shortcut and identity and in_channels == out_channels
        self.TaR = TimestepBias(shift_groups, in_channels) if method.shift else None
        self.binary_conv = BinaryWeightConv2d(in_channels, out_channels, kernel_size, method.weight)
        self.norm = nn.BatchNorm2d(out_channels) if method.norm else None
        self.TaA = TimestepRPReLU(rprelu_groups, out_channels) if method.rprelu else None

    def forward(self, x: Tensor, group: Tensor | None = None) -> Tensor:
        """x: (B, C_in, H, W); group: (B,) timestep group of each sample -> (B, C_out, H, W)."""
        r = x if self.TaR is None else self.TaR(x, group)
        z = self.binary_conv(sign(r, self.method.activation, progress=self.binary_conv.progress))
        if self.method.spatial_scale:
            z = z * self.spatial_scale(x)
        if self.norm is not None:
            z = self.norm(z)
        if self.TaA is not None:
            z = self.TaA(z, group)
        return z + x if self.shortcut else z

    @torch.no_grad()
    def spatial_scale(self, x: Tensor) -> Tensor:
        """XNOR-Net's K: k x k box average (zero padding, divided by k²) of the channel mean of ``|x|``, (B, 1, H, W),
        without gradient."""
        k = self.binary_conv.kernel_size
        return F.avg_pool2d(x.abs().mean(1, keepdim=True), k, stride=1, padding=k // 2, count_include_pad=True)


def set_progress(network: nn.Module, progress: float) -> None:
    """Tell the layers whose gradients sharpen during training (IR-Net) that the fraction `progress` in [0, 1] of it is
    done."""
    for module in network.modules():
        if isinstance(module, BinaryWeightConv2d):
            module.progress.fill_(progress)

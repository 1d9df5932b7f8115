"""The table of binarizers: each row names the parts that `BinaryConv2d` is built from. A new method is a new row."""

from dataclasses import dataclass
from typing import Literal

from bidiffsr_arch.binary.sign import SURROGATES
from bidiffsr_arch.binary.weight import WEIGHTS


@dataclass(frozen=True)
class Binarizer:
    """The steps of a 1-bit convolution layer, in this order.

    Attributes:
        shift: a learnable bias per channel is added before the sign (ReActNet's RSign; with one bias per timestep
            group, BI-DiffSR's TaR).
        activation: surrogate gradient of the activation's sign, a key of `SURROGATES`.
        weight: how weights become ``scale * ±1``, a key of `WEIGHTS`.
        spatial_scale: the result is multiplied by XNOR-Net's map K.
        norm: BatchNorm follows.
        rprelu: RPReLU follows (with one per timestep group, BI-DiffSR's TaA).
        shortcut: the input is added to the output if their widths match.
        source: the paper.
    """

    shift: bool
    activation: str
    weight: str
    spatial_scale: bool
    norm: bool
    rprelu: bool
    shortcut: bool
    source: str

    def __post_init__(self) -> None:
        if self.activation not in SURROGATES or self.weight not in WEIGHTS:
            raise ValueError(
                f"expected activation in {sorted(SURROGATES)} and weight in {sorted(WEIGHTS)}, "
                f"got {self.activation} and {self.weight}"
            )


Binarize = Literal["all", "activations"]
"""What a network binarizes. In two stages of training it learns 1-bit activations first, then 1-bit weights, too."""

#                        shift  activation  weight           K      norm   rprelu shortcut source
BINARIZERS: dict[str, Binarizer] = {
    "bnn":      Binarizer(False, "clip", "sign",             False, True,  False, False, "Hubara et al. 2016"),
    "dorefa":   Binarizer(False, "clip", "layer_mean",       False, True,  False, False, "Zhou et al. 2016"),
    "xnor":     Binarizer(False, "clip", "channel_mean",     True,  True,  False, False, "Rastegari et al. 2016"),
    "irnet":    Binarizer(False, "ede",  "standardised",     False, True,  False, False, "Qin et al. 2020"),
    "reactnet": Binarizer(True,  "poly", "channel_mean",     False, True,  True,  True,  "Liu et al. 2020"),
    "bbcu":     Binarizer(True,  "poly", "channel_mean",     False, False, True,  True,  "Xia et al. 2023"),
    "bidiffsr": Binarizer(True,  "poly", "channel_mean",     False, False, True,  True,  "Chen et al. 2024"),
}  # fmt: skip

"""The training loss of a diffusion network: a loss of the prediction, and one of the image that it implies."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from bidiffsr_arch.diffusion.super_resolution import SuperResolution

Loss = Callable[[Tensor, Tensor], Tensor]


class Objective:
    """Weighted terms of a training loss, by their names in BasicSR's log.

    Args:
        pixel: compares prediction and target; a mean over the samples.
        perceptual: compares two RGB images in [0, 1] and returns a perceptual and a style term, of which one may be
            None, like BasicSR's PerceptualLoss. It gets the images implied by prediction and target: x0, estimated
            from them and x_t, plus the condition if x0 is a residual.
        super_resolution: converts predictions to images; needed for `perceptual`.
    """

    def __init__(
        self, pixel: Loss, perceptual: nn.Module | None = None, super_resolution: SuperResolution | None = None
    ) -> None:
        self.pixel, self.perceptual, self.super_resolution = pixel, perceptual, super_resolution

    def __call__(self, prediction: Tensor, target: Tensor, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The terms by name.

        Args:
            prediction, target: (B, C, H, W), in the target's type.
            inputs: inputs of the network: x_t and the condition, of the target's shape, and the times (B,).
        """
        terms: dict[str, Tensor | None] = {"l_pix": self.pixel(prediction, target)}
        if self.perceptual is not None and self.super_resolution is not None:
            images = [self.super_resolution.implied_image(one, *inputs) for one in (prediction, target)]
            terms["l_percep"], terms["l_style"] = self.perceptual(*images)
        return {name: term for name, term in terms.items() if term is not None}

"""What a diffusion training minimises: a loss of the prediction, and one of the image that the prediction implies."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from bidiffsr_arch.diffusion.super_resolution import SuperResolution

Loss = Callable[[Tensor, Tensor], Tensor]


class Objective:
    """The terms of a training loss, each with its weight, under the names that BasicSR's log has for them.

    Args:
        pixel: compares prediction and target; a mean over the samples.
        perceptual: compares two RGB images in [0, 1], and gives a perceptual and a style term, of which one may be
            None, as BasicSR's PerceptualLoss does. It is asked with the images that prediction and target imply: x0,
            estimated from both and x_t, and the condition where x0 is a residual.
        super_resolution: turns predictions into images; needed by `perceptual`.
    """

    def __init__(
        self, pixel: Loss, perceptual: nn.Module | None = None, super_resolution: SuperResolution | None = None
    ) -> None:
        self.pixel, self.perceptual, self.super_resolution = pixel, perceptual, super_resolution

    def __call__(self, prediction: Tensor, target: Tensor, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Name -> term.

        Args:
            prediction, target: (B, C, H, W), in the target's type.
            inputs: what the network was given: x_t and the condition, like the target, and the times (B,).
        """
        terms: dict[str, Tensor | None] = {"l_pix": self.pixel(prediction, target)}
        if self.perceptual is not None and self.super_resolution is not None:
            images = [self.super_resolution.implied_image(one, *inputs) for one in (prediction, target)]
            terms["l_percep"], terms["l_style"] = self.perceptual(*images)
        return {name: term for name, term in terms.items() if term is not None}

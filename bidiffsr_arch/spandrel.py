"""Support for these networks in spandrel, and thereby in programs that use it, such as chaiNNer and ComfyUI's nodes.

    import bidiffsr_arch.spandrel, spandrel

    bidiffsr_arch.spandrel.install()
    model = spandrel.ModelLoader().load_from_file("net_g.safetensors")
    large = model(image)  # (1, 3, H, W) in [0, 1]

spandrel passes on tensors only. A float or packed ``.safetensors`` of this package contains its description as a tensor
(`bidiffsr_arch.description`); files without it are not detected.
"""

import torch
from torch import Tensor, nn

from bidiffsr_arch.compat.imports import torchvision_operators
from bidiffsr_arch.description import from_tensors
from bidiffsr_arch.networks import Weights, weights_from_tensors
from bidiffsr_arch.packed import PackedNetwork
from bidiffsr_arch.upscale import Upscaler

torchvision_operators()  # spandrel imports torchvision
from spandrel import (  # noqa: E402
    MAIN_REGISTRY,
    Architecture,
    ArchRegistry,
    ArchSupport,
    ImageModelDescriptor,
    ModelTiling,
    StateDict,
)

SEED = 0  # of the noise, fixed for reproducible results


class SampledNetwork(nn.Module):
    """A network together with its sampling: (B, 3, H, W) -> (B, 3, scale H, scale W), both in [0, 1]."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.network = weights.network
        self.upscaler = Upscaler(weights, device="cpu", seed=SEED)
        self.device_tag = nn.Parameter(torch.zeros(()), requires_grad=False)  # packed networks have no other parameter

    def forward(self, image: Tensor) -> Tensor:
        """Sample each image of the batch in tiles, with the number of steps in the weights' options."""
        return torch.cat([self.upscaler.sample(each) for each in image.split(1)])


class BIDiffSRArchitecture(Architecture[SampledNetwork]):
    """Detects and loads weights files of this package."""

    def __init__(self) -> None:
        super().__init__(id="BIDiffSR", name="BI-DiffSR", detect=lambda state: from_tensors(state) is not None)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[SampledNetwork]:
        """Create a model descriptor whose call samples.

        Raises:
            InputError: the tensors do not fit their description.
        """
        weights = weights_from_tensors(state_dict)
        model = SampledNetwork(weights)
        tags = ["1-bit" if isinstance(weights.network, PackedNetwork) else "float"]
        if not weights.is_direct:
            steps = model.upscaler.timesteps
            tags.append(f"{steps} {'step' if steps == 1 else 'steps'}")
        return ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose="SR",
            tags=tags,
            supports_half=False,
            supports_bfloat16=False,
            scale=weights.scale,
            input_channels=3,
            output_channels=3,
            tiling=ModelTiling.INTERNAL,
        )


def install(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Add the architecture to the front of spandrel's registry; a second call changes nothing."""
    others = tuple(support.architecture.id for support in registry)
    if "BIDiffSR" not in registry:
        registry.add(ArchSupport.from_architecture(BIDiffSRArchitecture(), before=others))

"""`BBCUNet` packed."""

from torch import Tensor

from bidiffsr_arch.archs.bbcu_arch import BBCUNet, upsample
from bidiffsr_arch.packed.backends import Map
from bidiffsr_arch.packed.backends.torch_backend import planes
from bidiffsr_arch.packed.blocks import Up
from bidiffsr_arch.packed.layers import LayerBuilder, PlainConv3x3, StepContext, binary_convs
from bidiffsr_arch.packed.network import PackedNetwork
from bidiffsr_arch.packed.registry import packs


@packs(BBCUNet)
class PackedBBCUNet(PackedNetwork):
    """A packed `BBCUNet`; arguments as `PackedNetwork`."""

    def build(self, builder: LayerBuilder, network: BBCUNet) -> None:
        """See `PackedNetwork.build`."""
        self.head, self.tail = PlainConv3x3(builder, "head"), PlainConv3x3(builder, "tail")
        self.body = binary_convs(builder, "body", network.body)
        self.ups = [Up(builder, f"up.{i}", up) for i, up in enumerate(network.up)]
        self.out_channels, self.scale_factor = self.tail.filters, network.upscale

    def forward(self, x: Tensor) -> Tensor:
        """As `BBCUNet.forward`: (B, C, H, W) -> (B, C, upscale * H, upscale * W), float32."""
        return self.run(x, x.new_zeros(len(x)))

    def compute(self, x: Map, step: StepContext) -> Map:
        """See `PackedNetwork.compute`."""
        height, width, _ = x.shape
        image, h = x, self.arena.allocate((height, width, self.head.filters))
        self.head(image, step, h)
        x = h
        for conv in self.body:
            out = self.arena.allocate((height, width, conv.filters))
            conv(x, step, out, residual=h if conv is self.body[-1] else None)
            if x is not h:
                self.arena.release(x)
            x = out
        self.arena.release(h)
        for up in self.ups:
            out = self.arena.allocate((2 * x.shape[0], 2 * x.shape[1], up.filters))
            up(x, step, out)
            self.arena.release(x)
            x = out
        out = self.arena.allocate((*x.shape[:2], self.tail.filters))
        self.tail(x, step, out)
        self.arena.release(x)
        planes(out, self.out_channels).add_(upsample(planes(image, self.out_channels), self.scale_factor))
        return out

"""The tensors of a packed network: those of the training network, with ``<layer>.bits`` and ``<layer>.scale`` in place
of each 1-bit weight.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bidiffsr_arch.binary.conv import BinaryWeightConv2d, RealWeightConv2d
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.layout import pack_bits


def binary_layers(network: nn.Module) -> Iterator[tuple[str, BinaryWeightConv2d]]:
    """Name and module of every 1-bit convolution; a module that is used twice occurs under both names."""
    modules = network.named_modules(remove_duplicate=False)
    return ((name, module) for name, module in modules if isinstance(module, BinaryWeightConv2d))


def layer_shapes(layer: BinaryWeightConv2d) -> dict[str, tuple[int, ...]]:
    """Shapes of a packed 1-bit weight: its bits (`layout.pack_bits`) and one scale per filter."""
    positions = layer.in_channels * layer.kernel_size**2
    return {"bits": (layer.out_channels, -(-positions // 8)), "scale": (layer.out_channels,)}


def other_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every float parameter and running statistic that is no 1-bit weight."""
    replaced = {f"{name}.weight" for name, _ in binary_layers(network)} | {
        f"{name}.progress" for name, _ in binary_layers(network)
    }
    parameters = network.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *network.named_buffers(remove_duplicate=False)]:
        if name not in replaced and tensor.is_floating_point():
            yield name, tensor


@torch.no_grad()
def packed_state(network: nn.Module) -> dict[str, Tensor]:
    """The packed tensors of a network, float32 and uint8, on the CPU.

    Raises:
        InputError: weights are not binarized yet, or one is not ``scale * ±1`` with one finite scale per filter.
    """
    real = [name for name, module in network.named_modules() if isinstance(module, RealWeightConv2d)]
    if real:
        raise InputError(
            f"expected 1-bit weights to pack, got real ones in {len(real)} layers, such as {real[0]} (network_g: "
            "binarize: activations); train the second stage first, with binarize: all"
        )
    state = {name: tensor.detach().float().cpu().clone() for name, tensor in other_tensors(network)}
    for name, layer in binary_layers(network):
        weight = layer.binary_weight().detach().float().cpu()
        scale = weight.abs().amax((1, 2, 3))
        if not torch.equal(weight.abs(), scale[:, None, None, None].expand_as(weight)):
            raise InputError(
                f"expected every binarized weight of {name} to be one number times +1 or -1 in each filter, "
                "got others; check the checkpoint"
            )
        # For a filter with scale 0, the signs do not matter.
        state[f"{name}.bits"] = torch.from_numpy(pack_bits((weight >= 0).numpy()))
        state[f"{name}.scale"] = scale
    return state


def expected_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of `packed_state` of a network, which may be on the meta device."""
    shapes = {name: tuple(tensor.shape) for name, tensor in other_tensors(network)}
    for name, layer in binary_layers(network):
        shapes |= {f"{name}.{part}": shape for part, shape in layer_shapes(layer).items()}
    return shapes

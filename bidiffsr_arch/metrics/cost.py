"""Parameters and operations of a network in the paper's accounting, counted from tensor shapes without computing.

A binary weight counts as 1/32 parameter, a binary multiply-accumulate as 1/64 operation; `cost_rules` has the rest.
The weights and convolutions of `BinaryWeightConv2d` are binary. Preparing a 1-bit weight (its scale, its
standardisation) happens once before inference and is not counted; buffers such as BatchNorm's statistics are not
parameters.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from bidiffsr_arch.binary.conv import BinaryWeightConv2d
from bidiffsr_arch.errors import InputError, typed_line
from bidiffsr_arch.metrics.cost_rules import aten, price

BINARY_WEIGHTS_PER_PARAMETER = 32
BINARY_OPS_PER_OPERATION = 64
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
DIFFUSION_INPUTS = ["x_t", "condition", "time"]


@dataclass(frozen=True)
class Counts:
    """Full-precision and binary parameters and operations; a binary weight or multiply-accumulate counts as 1 here."""

    params_fp: int
    params_binary: int
    ops_fp: int
    ops_binary: int

    @property
    def params(self) -> float:
        """``Params_fp + Params_binary / 32``."""
        return self.params_fp + self.params_binary / BINARY_WEIGHTS_PER_PARAMETER

    @property
    def ops(self) -> float:
        """``OPs_fp + OPs_binary / 64``."""
        return self.ops_fp + self.ops_binary / BINARY_OPS_PER_OPERATION


@dataclass(frozen=True)
class ModuleCost(Counts):
    """The cost of a module, submodules included.

    Attributes:
        name: its path in the network; empty for the network itself.
        kind: its class.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Cost(Counts):
    """The cost of a network.

    Attributes:
        inputs: shapes of the network's input tensors.
        modules: every module in the order of `named_modules`, submodules included; the first is the network.
        uncounted: operators without a rule, such as ``aten.sort``, and how often each was called.
    """

    inputs: tuple[tuple[int, ...], ...]
    modules: tuple[ModuleCost, ...]
    uncounted: dict[str, int]


def count_cost(
    network: nn.Module, input_size: Sequence[int] = (256, 256), inputs: Tensor | Sequence[Any] | None = None
) -> Cost:
    """Count the cost of a network in evaluation mode, with a copy on the meta device; the network is not changed.

    Args:
        network: any module, with or without 1-bit layers.
        input_size: height and width of the input images. A diffusion network of this package gets one sample of
            (x_t, condition, time). Any other network gets one image for each argument of its `forward` that has no
            default, or a clip of 7 or 5 frames. If it upsamples, this is the size *before*. `Cost.inputs` has the
            shapes that were used.
        inputs: the arguments of `forward` if they are not images; replaces `input_size`.

    Raises:
        InputError: the network does not run on such an input.
    """
    network = getattr(network, "_orig_mod", network)  # without the wrapper of torch.compile
    failure: Exception | None = None
    for arguments in [inputs] if inputs is not None else _inputs(network, *height_width(input_size)):
        arguments = (arguments,) if isinstance(arguments, Tensor) else tuple(arguments)
        try:
            return _count(network, tree_map_only(Tensor, lambda tensor: tensor.to("meta"), arguments))
        except InputError:
            raise
        except Exception as error:  # other packages' networks may raise anything
            failure = failure or error
    size = "the given inputs" if inputs is not None else f"an image of {input_size[0]}x{input_size[1]}"
    raise InputError(
        f"expected {type(network).__name__} to run on {size}, got {typed_line(failure)}; try another --input-size, or "
        "count_cost(network, inputs=...)"
    ) from failure


def height_width(input_size: Sequence[int]) -> tuple[int, int]:
    """Check an input size: height and width.

    Raises:
        InputError: it is not two positive integers.
    """
    match input_size:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise InputError(f"expected input_size to be two positive integers, height and width, got {input_size!r}")


def _inputs(network: nn.Module, height: int, width: int) -> Iterator[list[Tensor]]:
    """Candidate arguments of the network's `forward`, the likeliest first."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    in_channels = (getattr(module, "in_channels", None) for module in network.modules())
    first = next((channels for channels in in_channels if isinstance(channels, int)), 3)

    def image(*channels: int) -> Tensor:
        return torch.empty(1, *channels, height, width, dtype=dtype, device="meta")

    required = [
        name
        for name, parameter in inspect.signature(network.forward).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in POSITIONAL
    ]
    if required == DIFFUSION_INPUTS:
        both = getattr(network, "in_channel", first)  # with patches, the first layer has more input channels
        yield [image(both // 2), image(both // 2), torch.zeros(1, dtype=torch.long, device="meta")]
        return
    for channels in ((3,), (first,), (7, 3), (5, 3)):  # RGB, as many channels as the first layer takes, clips
        yield [image(*channels) for _ in required or ("image",)]


def _count(network: nn.Module, arguments: tuple[Any, ...]) -> Cost:
    network = _on_meta(network)
    modules = dict(network.named_modules())
    counter = OperationCounter()
    counter.watch(modules)
    with torch.inference_mode(False), torch.no_grad(), torch.device("meta"), counter:
        network(*arguments)

    parameters = [(name.rpartition(".")[0], parameter.numel()) for name, parameter in network.named_parameters()]
    totals: dict[str, Counter[str]] = {name: Counter() for name in modules}
    for kind, entries in (("params", parameters), ("ops", counter.operations.items())):
        for owner, number in entries:
            precision = "binary" if isinstance(modules[owner], BinaryWeightConv2d) else "fp"
            for name in _ancestors(owner):
                totals[name][f"{kind}_{precision}"] += number

    counts = {
        name: {field: total[field] for field in ("params_fp", "params_binary", "ops_fp", "ops_binary")}
        for name, total in totals.items()
    }
    shapes: list[tuple[int, ...]] = []
    tree_map_only(Tensor, lambda tensor: shapes.append(tuple(tensor.shape)), arguments)
    rows = tuple(ModuleCost(**counts[name], name=name, kind=type(module).__name__) for name, module in modules.items())
    return Cost(**counts[""], inputs=tuple(shapes), modules=rows, uncounted=dict(counter.uncounted))


def _ancestors(name: str) -> list[str]:
    """The paths of a module and of the modules that contain it: ``a.b`` -> ``"", a, a.b``."""
    parts = name.split(".") if name else []
    return [".".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode on the meta device: its tensors have shapes but no data."""
    plain = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    copies = {}
    for tensor in chain(network.parameters(), network.buffers(), plain):
        shape = torch.empty_like(tensor, device="meta", requires_grad=False)
        copies[id(tensor)] = nn.Parameter(shape, requires_grad=False) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(network, copies).eval()


class OperationCounter(TorchDispatchMode):
    """Adds up the cost of the operators that a network's `forward` calls.

    Attributes:
        operations: cost by the path of the innermost module that called the operator.
        uncounted: how often each operator without a rule was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self._running: list[tuple[str, bool]] = [("", False)]

    def watch(self, modules: dict[str, nn.Module]) -> None:
        """Track which of these modules is running."""
        for name, module in modules.items():
            entry = (name, isinstance(module, BinaryWeightConv2d))
            module.register_forward_pre_hook(lambda module, args, entry=entry: self._running.append(entry))
            module.register_forward_hook(lambda module, args, out: self._running.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name, binary = self._running[-1]
        if binary and func.overloadpacket is not aten.convolution:
            return out  # preparation of the 1-bit weight
        cost = price(func, args, kwargs, out)
        if cost is None:
            self.uncounted[str(func.overloadpacket)] += 1
        else:
            self.operations[name] += cost
        return out

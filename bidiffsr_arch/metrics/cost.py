"""Parameters and operations of a network in the paper's accounting, counted on shapes alone: no GPU, no arithmetic.

A binary weight counts 1/32 parameter, a binary multiply-accumulate 1/64 operation; `cost_rules` has the rest. Binary is
what `BinaryWeightConv2d` holds and multiplies. Preparing a 1-bit weight (its scale, its standardisation) is done once,
before inference, and counts nothing; buffers such as BatchNorm's statistics are no parameters.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from bidiffsr_arch.binary.conv import BinaryWeightConv2d
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.cost_rules import aten, price

WEIGHTS_A_PARAMETER = 32
BINARY_OPS_AN_OPERATION = 64
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
DIFFUSION_INPUTS = ["x_t", "condition", "time"]


@dataclass(frozen=True)
class Counts:
    """Parameters and operations, full precision and binary apart; a binary weight or multiply-accumulate is 1 here."""

    params_fp: int
    params_binary: int
    ops_fp: int
    ops_binary: int

    @property
    def params(self) -> float:
        """``Params_fp + Params_binary / 32``."""
        return self.params_fp + self.params_binary / WEIGHTS_A_PARAMETER

    @property
    def ops(self) -> float:
        """``OPs_fp + OPs_binary / 64``."""
        return self.ops_fp + self.ops_binary / BINARY_OPS_AN_OPERATION


@dataclass(frozen=True)
class ModuleCost(Counts):
    """A module and all that is in it: its path in the network (the network itself: empty) and its class."""

    name: str
    kind: str


@dataclass(frozen=True)
class Cost(Counts):
    """What a network costs.

    Attributes:
        inputs: shapes of the tensors that the network was given.
        modules: every module, in the tree's order, each with what is in it; the first is the network.
        uncounted: operations for which there is no rule, as ``aten.sort``, and how often each was met.
    """

    inputs: tuple[tuple[int, ...], ...]
    modules: tuple[ModuleCost, ...]
    uncounted: dict[str, int]


def count_cost(
    network: nn.Module, input_size: Sequence[int] = (256, 256), inputs: Tensor | Sequence[Any] | None = None
) -> Cost:
    """Count what a network costs in evaluation mode; the network itself is neither changed nor run.

    Args:
        network: any module, with or without 1-bit layers.
        input_size: height and width of the pictures that it is given. A network of this package gets one sample of
            (x_t, condition, time). Any other gets a picture for each argument of its `forward` that has no default, or
            a clip of 7 or 5 pictures; where it enlarges them, this is the size *before*. `Cost.inputs` says which.
        inputs: the arguments of `forward`, where it takes something else than pictures; takes the place of input_size.

    Raises:
        InputError: the network does not run on such an input.
    """
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    failure: Exception | None = None
    for arguments in [inputs] if inputs is not None else _inputs(network, *_height_width(input_size)):
        arguments = (arguments,) if isinstance(arguments, Tensor) else tuple(arguments)
        try:
            return _count(network, tree_map_only(Tensor, lambda tensor: tensor.to("meta"), arguments))
        except InputError:
            raise
        except Exception as error:  # whatever somebody's network may raise
            failure = failure or error
    size = "the given inputs" if inputs is not None else f"a picture of {input_size[0]}x{input_size[1]}"
    reason = next(iter(str(failure).splitlines()), "")
    raise InputError(
        f"expected {type(network).__name__} to run on {size}, got {type(failure).__name__}: {reason}; "
        "another --input-size, or count_cost(network, inputs=...), may suit it"
    ) from failure


def _height_width(input_size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = input_size
    except (TypeError, ValueError):
        height = width = None
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise InputError(f"expected input_size as two whole numbers from 1 on, height and width, got {input_size!r}")
    return height, width


def _inputs(network: nn.Module, height: int, width: int) -> Iterator[list[Tensor]]:
    """Arguments of the network's `forward` that may suit it, the likeliest first."""
    like = next(network.parameters(), torch.empty(()))
    first = next((module.in_channels for module in network.modules() if hasattr(module, "in_channels")), 3)

    def picture(*channels: int) -> Tensor:
        return torch.empty(1, *channels, height, width, dtype=like.dtype, device="meta")

    required = [
        name
        for name, parameter in inspect.signature(network.forward).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in POSITIONAL
    ]
    if required == DIFFUSION_INPUTS:
        both = getattr(network, "in_channel", first)  # of a network that takes patches, the first layer sees more
        yield [picture(both // 2), picture(both // 2), torch.zeros(1, dtype=torch.long, device="meta")]
        return
    for channels in ((3,), (first,), (7, 3), (5, 3)):  # colour, what the first layer takes, clips
        yield [picture(*channels) for _ in required or ("picture",)]


def _count(network: nn.Module, arguments: tuple[Any, ...]) -> Cost:
    network = _on_meta(network)
    modules = dict(network.named_modules())
    counter = OperationCounter()
    counter.watch(modules)
    with torch.inference_mode(False), torch.no_grad(), torch.device("meta"), counter:
        network(*arguments)

    parameters = [(name.rpartition(".")[0], parameter.numel()) for name, parameter in network.named_parameters()]
    totals = {name: Counter() for name in modules}
    for kind, entries in (("params", parameters), ("ops", counter.operations.items())):
        for owner, number in entries:
            precision = "binary" if isinstance(modules[owner], BinaryWeightConv2d) else "fp"
            for name in _lineage(owner):
                totals[name][f"{kind}_{precision}"] += number

    counts = {
        name: {field: total[field] for field in ("params_fp", "params_binary", "ops_fp", "ops_binary")}
        for name, total in totals.items()
    }
    shapes = []
    tree_map_only(Tensor, lambda tensor: shapes.append(tuple(tensor.shape)), arguments)
    rows = tuple(ModuleCost(**counts[name], name=name, kind=type(module).__name__) for name, module in modules.items())
    return Cost(**counts[""], inputs=tuple(shapes), modules=rows, uncounted=dict(counter.uncounted))


def _lineage(name: str) -> list[str]:
    """The paths of a module and of all that it is in: ``a.b`` -> ``"", a, a.b``."""
    parts = name.split(".") if name else []
    return [".".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors have shapes and no memory."""
    plain = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    copies = {}
    for tensor in chain(network.parameters(), network.buffers(), plain):
        shape = torch.empty_like(tensor, device="meta", requires_grad=False)
        copies[id(tensor)] = nn.Parameter(shape, requires_grad=False) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(network, copies).eval()


class OperationCounter(TorchDispatchMode):
    """Adds up what the operations of a network's `forward` cost.

    Attributes:
        operations: cost by the path of the innermost module in which it arose.
        uncounted: how often each operation without a rule was met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self._running: list[tuple[str, bool]] = [("", False)]

    def watch(self, modules: dict[str, nn.Module]) -> None:
        """Note when each of these modules runs."""
        for name, module in modules.items():
            entry = (name, isinstance(module, BinaryWeightConv2d))
            module.register_forward_pre_hook(lambda module, args, entry=entry: self._running.append(entry))
            module.register_forward_hook(lambda module, args, out: self._running.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name, binary = self._running[-1]
        if binary and func.overloadpacket is not aten.convolution:
            return out  # prepares the 1-bit weight
        cost = price(func, args, kwargs, out)
        if cost is None:
            self.uncounted[str(func.overloadpacket)] += 1
        else:
            self.operations[name] += cost
        return out


_measured: ContextVar[nn.Module | None] = ContextVar("measured network", default=None)
_counted: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Cost]] = WeakKeyDictionary()


@contextmanager
def measured_network(network: nn.Module) -> Iterator[None]:
    """`calculate_params` and `calculate_ops` speak of this network meanwhile."""
    token = _measured.set(network)
    try:
        yield
    finally:
        _measured.reset(token)


def calculate_params(img: Any, img2: Any = None, **kwargs: Any) -> float:
    """Parameters of the network under validation, in M, as a BasicSR metric; all arguments are ignored.

    Raises:
        InputError: there is no such network: the model is not a `BIDiffSRModel`.
    """
    return _measured_cost("calculate_params").params / 1e6


def calculate_ops(img: Any, img2: Any = None, input_size: Sequence[int] = (256, 256), **kwargs: Any) -> float:
    """Operations of one sampling step of the network under validation, in G, as a BasicSR metric.

    Args:
        img, img2: ignored: the same for all pictures.
        input_size: height and width of the network's output, multiples of what the network needs.
        kwargs: BasicSR hands its metrics further options, such as `better`; they do not matter here.

    Raises:
        InputError: there is no such network: the model is not a `BIDiffSRModel`; or it does not run at that size.
    """
    return _measured_cost("calculate_ops", input_size).ops / 1e9


def _measured_cost(metric: str, input_size: Sequence[int] = (256, 256)) -> Cost:
    """The cost of the measured network, counted once for each network and size."""
    network = _measured.get()
    if network is None:
        raise InputError(
            f"{metric} counts the network of a BIDiffSRModel during its validation, got none; "
            "under another model use `basicsr cost -opt FILE`"
        )
    sizes = _counted.setdefault(network, {})
    size = _height_width(input_size)
    if size not in sizes:
        sizes[size] = count_cost(network, size)
        if sizes[size].uncounted:
            names = ", ".join(sizes[size].uncounted)
            get_root_logger().warning(f"{type(network).__name__}: not counted in params and OPs: {names}")
    return sizes[size]

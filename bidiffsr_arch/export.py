"""Export float networks as ONNX files and as programs of `torch.export`, for runtimes without this package.

One call of the network is exported: ``(x_t, condition, time) -> prediction``, or ``image -> result`` without diffusion.
Noise, sampler and tiles are the caller's. Batch size, height and width are dynamic; height and width must be multiples
of the network's `multiple`. The file contains the network's description, see `bidiffsr_arch.description`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from bidiffsr_arch.binary.conv import BinaryWeightConv2d, cached_weights
from bidiffsr_arch.description import KEY, describe
from bidiffsr_arch.errors import CheckFailed, InputError, choose, first_line, install_extra
from bidiffsr_arch.files import refuse_existing, write_bytes
from bidiffsr_arch.networks import Weights, is_direct
from bidiffsr_arch.packed import PackedNetwork

INPUTS, DIRECT_INPUTS = ("x_t", "condition", "time"), ("image",)
OPSET = 18  # of ONNX
TOLERANCE = 1e-4
# Sizes of the images with which a file is checked, in units of the network's `multiple`; torch.export refuses 1.
SIZES = ((2, 2), (2, 3), (5, 2))
# Rounding can move the argument of a sign across zero, and the flipped sign changes all later layers. Files are
# therefore checked with images for which all arguments of signs are at least this far from zero.
MARGIN = 4e-6
DRAWS = 100  # images that are drawn to find one

Call = Callable[..., Tensor]


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file.

    Attributes:
        suffix: suffix of file names.
        packages: packages that writing needs, in addition to torch.
        named: whether dynamic sizes have names, see `trace`.
        encode: (program, names of the inputs, description) -> content of the file.
        open: content -> the exported function of the network's inputs; None if the runtime is not installed.
        runtime: name of the runtime.
    """

    suffix: str
    packages: tuple[str, ...]
    named: bool
    encode: Callable[[ExportedProgram, tuple[str, ...], Mapping[str, Any]], bytes]
    open: Callable[[bytes], Call | None]
    runtime: str


def _encode_onnx(program: ExportedProgram, inputs: tuple[str, ...], description: Mapping[str, Any]) -> bytes:
    import onnx

    outputs = ["result" if inputs == DIRECT_INPUTS else "prediction"]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # the exporter's progress
        exported = torch.onnx.export(
            program, input_names=list(inputs), output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, {KEY: json.dumps(description)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _open_onnx(content: bytes) -> Call | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *inputs: torch.from_numpy(
        session.run(None, {name: each.numpy() for name, each in zip(names, inputs, strict=True)})[0]
    )


def _encode_program(program: ExportedProgram, inputs: tuple[str, ...], description: Mapping[str, Any]) -> bytes:
    content = BytesIO()
    torch.export.save(program, content, extra_files={f"{KEY}.json": json.dumps(description)})
    return content.getvalue()


def _open_program(content: bytes) -> Call:
    return torch.export.load(BytesIO(content)).module()


FORMATS = {
    "onnx": ExportFormat(".onnx", ("onnx", "onnxscript"), True, _encode_onnx, _open_onnx, "onnxruntime"),
    "pt2": ExportFormat(".pt2", (), False, _encode_program, _open_program, "torch.export"),
}


def export(weights: Weights, path: Path | str, kind: str = "onnx", *, overwrite: bool = False) -> float | None:
    """Export a float network to a file, after comparing the exported network with the original.

    Args:
        weights: as `load_weights` reads them.
        kind: ``onnx``, or ``pt2`` for a program of `torch.export`.
    Returns:
        The largest difference from the original over images of several sizes and all timestep groups; None if the
        runtime is not installed.
    Raises:
        InputError: the network is packed or cannot be traced, the file exists, or a package is not installed.
        CheckFailed: the exported network differs by more than `TOLERANCE`. Nothing is written.
    """
    path, form = Path(path).expanduser(), choose("format", kind, FORMATS)
    if path.suffix != form.suffix:
        raise InputError(f"expected a name that ends in {form.suffix}, got {path}")
    refuse_existing(path, overwrite)
    if isinstance(weights.network, PackedNetwork):
        source = weights.options.get("source") or "its .pth"
        raise InputError(f"expected a float network, got a packed one; export what it was packed from, {source}")
    _refuse_missing(form.packages)
    inputs = DIRECT_INPUTS if is_direct(weights.network) else INPUTS
    content = form.encode(trace(weights, form.named), inputs, describe(weights.options))
    call = form.open(content)
    difference = None if call is None else largest_difference(weights, call)
    if difference is not None and not difference <= TOLERANCE:
        raise CheckFailed(f"{form.runtime} differs from the network by {difference:.1e}, more than {TOLERANCE:.0e}")
    write_bytes(path, content)
    return difference


def _refuse_missing(packages: tuple[str, ...]) -> None:
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"expected the package {name}, which is not installed; {install_extra('export')}"
            ) from error


def trace(weights: Weights, named: bool) -> ExportedProgram:
    """The network as a program of `torch.export`, for any batch, height and width.

    The signs of 1-bit weights are constants of the program, one byte each.

    Args:
        named: name the dynamic sizes; height and width are multiples of `rows` and `columns`. `torch.export.load` does
            not find their values (torch 2.13), so a program that will be saved cannot have them.
    Raises:
        InputError: it cannot be traced.
    """
    network, multiple = weights.network, weights.multiple
    batch: Any = Dim("batch") if named else Dim.DYNAMIC
    size = {0: batch, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    if named:
        size |= {2: multiple * Dim("rows"), 3: multiple * Dim("columns")}
    example = images(weights, (2, 3), torch.tensor([0.0, 1.0]), seed=0)
    shapes = (size,) if is_direct(network) else (size, size, {0: batch})
    try:
        with torch.no_grad(), cached_weights(network):
            return torch.export.export(network.cpu(), example, dynamic_shapes=shapes)
    except Exception as error:
        name = type(network).__name__
        raise InputError(f"{name} cannot be traced by torch.export: {first_line(error)}") from error


def images(weights: Weights, size: tuple[int, int], time: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Random inputs of the network.

    Args:
        size: height and width in units of the network's `multiple`.
        time: (B,) float32.
    """
    height, width = (weights.multiple * length for length in size)
    shape = (len(time), 3, height, width)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    return (image,) if is_direct(weights.network) else (torch.randn(shape, generator=generator), image, time)


def largest_difference(weights: Weights, call: Call) -> float:
    """The largest difference between a network and its export, over `SIZES` and all timestep groups.

    The images of one size form a batch, in which each sample has a different timestep.
    """
    differences = []
    for size in SIZES:
        samples = [_without_close_signs(weights, size, time) for time in times(weights).split(1)]
        batch = [torch.cat(parts) for parts in zip(*samples, strict=True)]
        with torch.no_grad():
            expected = weights.network(*batch)
        differences.append((call(*batch) - expected).abs().max().item())
    return max(differences)


def times(weights: Weights) -> Tensor:
    """The first and the last timestep of each group, or one noise level, which is in no group; (B,) float32."""
    network, schedule = weights.network, weights.options.get("beta_schedule") or {}
    if weights.options.get("time_input") == "noise_level":
        return torch.tensor([0.5])
    groups, steps = getattr(network, "dynamic_group", 1), getattr(network, "total_step", schedule.get("n_timestep", 1))
    firsts = [-(-group * steps // groups) for group in range(groups + 1)]
    filled = [(first, after) for first, after in pairwise(firsts) if first < after]  # with few timesteps some are empty
    return torch.tensor(sorted({float(t) for first, after in filled for t in (first, after - 1)}))


def _without_close_signs(weights: Weights, size: tuple[int, int], time: Tensor) -> tuple[Tensor, ...]:
    """`images` for one timestep, from the first seed that keeps `MARGIN`, or else from the best of `DRAWS` seeds."""
    drawn = []
    for seed in range(DRAWS):
        inputs = images(weights, size, time, seed)
        with torch.no_grad(), _smallest_sign_argument(weights.network) as smallest:
            weights.network(*inputs)
        drawn.append((min(smallest, default=MARGIN), inputs))
        if drawn[-1][0] >= MARGIN:
            break
    return max(drawn, key=lambda pair: pair[0])[1]


@contextmanager
def _smallest_sign_argument(network: nn.Module) -> Iterator[list[float]]:
    """A list to which each 1-bit convolution appends the smallest magnitude of the values whose signs it takes."""
    found: list[float] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> None:
        x, shift = inputs
        found.append((x if shift is None else x + shift).abs().min().item())

    layers = [module for module in network.modules() if isinstance(module, BinaryWeightConv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

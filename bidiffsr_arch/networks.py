"""Build networks from options, and load trained networks with their options.

The architectures of this package do not need BasicSR. Other names are looked up in BasicSR's registry, if BasicSR is
installed.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from bidiffsr_arch import archs, description, hub
from bidiffsr_arch.archs.blocks import TILE_SIDE
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.qualities import FIRST
from bidiffsr_arch.errors import INSTALL_BASICSR, InputError, choose, first_line
from bidiffsr_arch.parameters import SAFETENSORS, load_parameters, read_content, set_parameters
from bidiffsr_arch.plugins import failed_plugins, import_plugins, load_plugins

CHECKPOINTS = (".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """A trained network and its options.

    Attributes:
        network: (x_t, condition, time) -> prediction, or image -> larger image without diffusion; in eval mode.
        options: ``scale``, ``beta_schedule`` and the other options of `SuperResolution`.
        multiple: height and width of the network's input must be multiples of it.
    """

    network: nn.Module
    options: Mapping[str, Any]
    multiple: int

    @property
    def scale(self) -> int:
        """Scale factor from the input image to the result."""
        return self.options["scale"]

    @property
    def tile(self) -> int:
        """Side of tiles in result pixels: the network's `tile_side`, or that of the paper's network."""
        return getattr(self.network, "tile_side", TILE_SIDE)

    @property
    def is_direct(self) -> bool:
        """Whether the network upscales an image in one call, without diffusion: it has no ``beta_schedule``."""
        return not self.options.get("beta_schedule") and is_direct(self.network)


def is_direct(network: Callable) -> bool:
    """Whether a network is a function of the image alone, not one of (x_t, condition, time)."""
    function = network.forward if isinstance(network, nn.Module) else network
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(parameter.default is parameter.empty for parameter in positional) == 1


def find_architecture(name: Any) -> type[nn.Module]:
    """The network class with this name, from this package, BasicSR or a plugin.

    Raises:
        InputError: there is none; the message lists the known names, and plugins that could not be imported.
    """
    own = {own_name: getattr(archs, own_name) for own_name in archs.__all__}
    if isinstance(name, str) and name in own:
        return own[name]
    load_plugins()
    try:
        import basicsr.archs  # noqa: F401 (registers BasicSR's own networks)
        from basicsr.utils.registry import ARCH_REGISTRY
    except ImportError as error:
        raise InputError(
            f"expected network_g: type to be one of {', '.join(own)} where BasicSR is not installed, got {name!r}; "
            f"for others: {INSTALL_BASICSR}"
        ) from error
    registered = {key.removesuffix("_basicsr"): network for key, network in ARCH_REGISTRY}
    try:
        return choose("network_g: type", name, registered | own)
    except InputError as error:
        failed = "".join(f"; plugin {plugin} was not imported: {reason}" for plugin, reason in failed_plugins().items())
        raise InputError(f"{error}{failed}") from error


def constructor_defaults(architecture: type[nn.Module]) -> dict[str, Any]:
    """The arguments of a network's constructor that have defaults, with their defaults."""
    parameters = inspect.signature(architecture).parameters
    return {name: entry.default for name, entry in parameters.items() if entry.default is not entry.empty}


def build_network(network_g: Mapping[str, Any], *, on_meta: bool = False) -> nn.Module:
    """Build the network of an option file's ``network_g`` block.

    Args:
        network_g: ``type``, a name of `find_architecture`, and the constructor's arguments.
        on_meta: build on the meta device, which needs neither time nor memory for parameters. Constructors that read
            values of tensors are called on the CPU instead.
    Raises:
        InputError: there is no such network, or its arguments are wrong.
    """
    arguments = dict(network_g)
    architecture = find_architecture(arguments.pop("type", None))
    for device in (torch.device("meta"), nullcontext()) if on_meta else (nullcontext(),):
        try:
            with device:
                return architecture(**arguments)
        except InputError:
            raise
        except Exception as error:
            failure = error
    raise InputError(f"network_g: {architecture.__name__} cannot be built: {first_line(failure)}") from failure


def load_weights(
    path: str | Path,
    option_file: str | Path | None = None,
    packed: bool | None = None,
    quality: str | None = None,
) -> Weights:
    """Read a checkpoint or a packed network.

    Args:
        path: a ``.pth`` written by training, a ``.safetensors`` of float parameters or of `basicsr pack` (recognised by
            its content), a folder in the Hub's layout, or ``hf://OWNER/NAME``, see `hub.local`.
        option_file: option file of a checkpoint; if None, the description in the checkpoint, config.json in its folder,
            or the option file that training stored beside it, see `stored_options`. A packed network contains its
            options.
        packed: whether to use packed inference; if None, use it for packed files.
        quality: which set of parameters of a packed file, see `QUALITIES`; the first if None. Other files have only the
            first.
    Raises:
        InputError: no such file, not weights, weights of another network or scale, no such set, or options that are
            missing or wrong.
    """
    path = _weights_file(path)
    if is_packed(path):
        return _load_packed(path, option_file, packed, quality)
    choose(f"the quality of {path}", quality or FIRST, {FIRST: path})
    return _load_checkpoint(path, option_file, packed)


def qualities(path: str | Path) -> list[str]:
    """Names of the sets of parameters in weights, as `load_weights` takes them; only packed files may have several.

    Raises:
        InputError: no such file, not weights, or a damaged packed file.
    """
    from bidiffsr_arch.packed.file_format import read_descriptions

    path = _weights_file(path)
    return list(read_descriptions(path)) if is_packed(path) else [FIRST]


def _weights_file(path: str | Path) -> Path:
    """The weights file for a path or an address on the Hub."""
    path = hub.local(path)
    path = hub.weights_in(path) if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"expected weights at {path}, found no such file; give --weights a .pth or .safetensors")
    if path.suffix not in (*CHECKPOINTS, SAFETENSORS):
        raise InputError(f"expected weights ending in {', '.join(CHECKPOINTS)} or {SAFETENSORS}, got {path}")
    return path


def is_packed(path: str | Path) -> bool:
    """Whether a file is a packed network. True for an unreadable ``.safetensors``, too: `load_packed` reports the
    reason."""
    from bidiffsr_arch.packed.file_format import FORMAT

    if Path(path).suffix != SAFETENSORS:
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return True


def stored_options(checkpoint: Path) -> Path | None:
    """The option file of a checkpoint: the file of the same name with ``.yml``, or the copy in the experiment's folder
    if the checkpoint is in its ``models/``. None if there is none.

    Raises:
        InputError: there are several.
    """
    namesake = checkpoint.with_suffix(".yml")
    if namesake.is_file():
        return namesake
    experiment = checkpoint.resolve().parent.parent
    found = sorted(experiment.glob("*.yml")) if checkpoint.resolve().parent.name == "models" else []
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"expected one option file in {experiment}, found {names}; choose one with -opt")
    return found[0] if found else None


def described_options(path: Path) -> Mapping[str, Any] | None:
    """The description in a checkpoint, or in config.json beside ``model.safetensors``; None if there is none.

    Raises:
        InputError: the two differ.
    """
    own = description.read_description(path) if path.suffix == SAFETENSORS else read_content(path).get(description.KEY)
    config = hub.read_config(path.parent) if path.name == hub.WEIGHTS else None
    if own and config and own != config:
        raise InputError(f"expected equal descriptions in {hub.CONFIG} and {path}, but they differ; save both again")
    return description.usable(own or config)


def checkpoint_options(path: Path, option_file: str | Path | None = None) -> tuple[Mapping[str, Any], str | Path]:
    """The options with which a checkpoint was trained, and the file that contains them: `option_file` if given, else
    the checkpoint itself or config.json beside it, else an option file beside it, see `stored_options`.

    Raises:
        InputError: there is no such file, it lacks the network or the scale, or its scale is not the checkpoint's.
    """
    options = None if option_file else described_options(path)
    chosen = path if options else option_file or stored_options(path)
    if chosen is None:
        raise InputError(
            f"expected the options that {path} was trained with, found none beside it; give them with -opt"
        )
    options = options or load_options(chosen)
    if not isinstance(options.get("network_g"), Mapping) or options.get("scale") is None:
        raise InputError(f"{chosen}: expected `network_g:` and `scale:` of the trained network, found none")
    if option_file is not None:
        _refuse_other_scale(path, option_file, options["scale"])
    return options, chosen


def _load_checkpoint(path: Path, option_file: str | Path | None, packed: bool | None) -> Weights:
    options, chosen = checkpoint_options(path, option_file)
    import_plugins((), options)
    network = build_network(options["network_g"])
    load_parameters(network, path, options=chosen)
    multiple = getattr(network.eval(), "multiple", 1)
    if packed:
        from bidiffsr_arch.packed import pack

        return Weights(pack(network), options, multiple)
    return Weights(network, options, multiple)


def _refuse_other_scale(path: Path, option_file: str | Path, scale: int) -> None:
    """Refuse an option file whose scale differs from that of the checkpoint, if the latter is known."""
    try:
        beside = stored_options(path)
        known = described_options(path) or (load_options(beside) if beside else {})
        trained = known.get("scale")
    except InputError:
        return
    if trained is not None and trained != scale:
        raise InputError(f"expected weights of x{scale}, as {option_file} says, got {path}, trained for x{trained}")


def _load_packed(path: Path, option_file: str | Path | None, packed: bool | None, quality: str | None) -> Weights:
    from bidiffsr_arch.packed import load_packed

    if packed is False:
        raise InputError(f"expected a .pth to compute in float, got the packed network {path}; leave --float out")
    if option_file is not None:
        raise InputError(f"expected no -opt with {path}: a packed network contains its options")
    return _packed_weights(path, *load_packed(path, quality=quality))


def _packed_weights(source: Path | str, network: Any, stored: Any) -> Weights:
    options = {name: value for name, value in stored.model_dump(exclude_unset=True).items() if value is not None}
    if "scale" not in options:
        raise InputError(f"expected a scale in the description of {source}, found none; pack it again")
    if "steps" in options and not is_direct(network):
        options["beta_schedule"] = options.get("beta_schedule", {}) | {"num_inference_steps": options["steps"]}
    return Weights(network, options, network.multiple)


def weights_from_tensors(tensors: Mapping[str, Any]) -> Weights:
    """A float or packed network from the tensors of a file with a description, see `bidiffsr_arch.description`.

    Raises:
        InputError: there is no description, or the tensors do not fit it.
    """
    source = "the state dict"
    options = description.usable(description.from_tensors(tensors))
    if options is None or not isinstance(options.get("network_g"), Mapping) or options.get("scale") is None:
        raise InputError(f"expected `network_g` and `scale` in {source}'s {description.TENSOR}, found none")
    if any(name.endswith(".bits") for name in tensors):
        from bidiffsr_arch.packed.file_format import Description, assemble

        stored = Description.read(options, source)
        return _packed_weights(source, assemble(source, stored, tensors), stored)
    network = build_network(options["network_g"])
    parameters = OrderedDict((name, tensor) for name, tensor in tensors.items() if name != description.TENSOR)
    set_parameters(network, parameters, source)
    return Weights(network.eval(), options, getattr(network, "multiple", 1))

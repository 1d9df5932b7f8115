"""From a file of weights to a network that can be sampled: what it was trained to do is found with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from bidiffsr_arch.checkpoint import read_checkpoint
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.diffusion.super_resolution import Network
from bidiffsr_arch.errors import InputError, choose

CHECKPOINT, PACKED = ".pth", ".safetensors"


@dataclass(frozen=True)
class Weights:
    """A trained network, and what it was trained to do.

    Attributes:
        network: (x_t, condition, time) -> prediction, in eval mode.
        options: ``scale``, ``beta_schedule`` and the other options of `SuperResolution`.
        multiple: sides of pictures that the network takes are multiples of it.
    """

    network: Network
    options: Mapping[str, Any]
    multiple: int

    @property
    def scale(self) -> int:
        """Side of the result over that of the picture."""
        return self.options["scale"]


def load_weights(path: str | Path, option_file: str | Path | None = None, packed: bool | None = None) -> Weights:
    """Read a checkpoint or a packed network.

    Args:
        path: a ``.pth`` written by training, or a ``.safetensors`` written by `basicsr pack`.
        option_file: what the checkpoint was trained with; if None, the file that training laid beside it, see
            `stored_options`. A packed network brings its own.
        packed: whether to compute with 1-bit weights; None for as the file is.
    Raises:
        InputError: no such file, not weights, weights of another network or scale, or options that are missing or
            wrong.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"expected weights at {path}, found no such file; give --weights a .pth or .safetensors")
    readers = {CHECKPOINT: _read_checkpoint, PACKED: _read_packed}
    if path.suffix not in readers:
        raise InputError(f"expected weights ending in {' or '.join(readers)}, got {path}")
    return readers[path.suffix](path, option_file, packed)


def stored_options(checkpoint: Path) -> Path | None:
    """The option file of a checkpoint: its name with ``.yml``, or the one that training copied into the experiment's
    folder, of which the checkpoint lies in ``models/``. None if there is none.

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


def _read_checkpoint(path: Path, option_file: str | Path | None, packed: bool | None) -> Weights:
    beside = stored_options(path) if option_file is None else None
    chosen = option_file or beside
    if chosen is None:
        raise InputError(
            f"expected the options that {path} was trained with, found none beside it; give them with -opt"
        )
    options = load_options(chosen)
    if not options.get("network_g") or options.get("scale") is None:
        raise InputError(f"{chosen}: expected `network_g:` and `scale:`, as a network is trained with, found none")
    if option_file is not None:
        _refuse_other_scale(path, option_file, options["scale"])
    network = build_network(options["network_g"])
    parameters, _ = read_checkpoint(path, "params_ema")
    try:
        network.load_state_dict(parameters)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise InputError(
            f"expected weights of the network in {chosen}, got {path}, which differs in {len(lines)} places; "
            f"first: {lines[0][:200]}"
        ) from error
    network.eval()
    multiple = getattr(network, "multiple", 1)
    if packed:
        from bidiffsr_arch.packed import pack

        return Weights(pack(network), options, multiple)
    return Weights(network, options, multiple)


def build_network(network_g: Mapping[str, Any]) -> nn.Module:
    """The network of an option file's `network_g:` block.

    Raises:
        InputError: there is no such network, or its arguments are wrong.
    """
    arguments = dict(network_g)
    networks = {name.removesuffix("_basicsr"): network for name, network in ARCH_REGISTRY}
    network = choose("network_g: type", arguments.pop("type"), networks)
    try:
        return network(**arguments)
    except InputError:
        raise
    except Exception as error:  # whatever somebody's constructor may raise
        raise InputError(f"network_g: {network.__name__} cannot be built: {error}") from error


def _refuse_other_scale(path: Path, option_file: str | Path, scale: int) -> None:
    """Nothing in a checkpoint tells its scale; the options that it was trained with do, where they lie beside it."""
    try:
        beside = stored_options(path)
        trained = load_options(beside).get("scale") if beside else None
    except InputError:
        return
    if trained is not None and trained != scale:
        raise InputError(f"expected weights of x{scale}, as {option_file} says, got {path}, trained for x{trained}")


def _read_packed(path: Path, option_file: str | Path | None, packed: bool | None) -> Weights:
    from bidiffsr_arch.packed import load_packed

    if packed is False:
        raise InputError(f"expected a .pth to compute in float, got {path}, whose weights are bits; leave --float out")
    if option_file is not None:
        raise InputError(f"expected no -opt with {path}: a packed network brings its own options")
    network, description = load_packed(path)
    options = {name: value for name, value in description.model_dump().items() if value is not None}
    if "scale" not in options:
        raise InputError(f"expected {path} to say its scale, it does not; pack it again with `basicsr pack`")
    if "steps" in options:
        options["beta_schedule"] = options["beta_schedule"] | {"num_inference_steps": options["steps"]}
    return Weights(network, options, network.multiple)

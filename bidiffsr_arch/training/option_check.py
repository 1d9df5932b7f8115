"""Checks of an option file that need BasicSR's registries, the networks or this machine, before training starts.

The structs of `config` check the file itself. This module checks the classes that it names, blocks that become
arguments of a constructor or function (network_g, losses, optimizer, scheduler, metrics) by its signature, and this
package's networks by building them on the meta device. Models and data sets of other packages, and networks with
``**kwargs``, may read any keys.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from bidiffsr_arch import archs
from bidiffsr_arch.config.file import AnyFile, DiffusionFile, OptionFile, check_file
from bidiffsr_arch.config.signature import KINDS, wrong_arguments
from bidiffsr_arch.config.struct import one_line
from bidiffsr_arch.errors import InputError, first_line
from bidiffsr_arch.metrics.iqa import calculate_iqa, wrong_metric
from bidiffsr_arch.networks import is_direct
from bidiffsr_arch.training.environment import unmet_requirements

# Above these, building a network of this package would take hours or exhaust the memory.
Size = Annotated[int, Field(ge=1, le=100_000)]
SIZES = {int: Size, Sequence[int]: list[Size], "res_blocks": Annotated[int, Field(ge=1, le=100)]}
# What a model calls its network with.
INPUTS = {"BIDiffSRModel": ("x_t", "condition", "time"), "SRModel": ("image",)}
# Modules whose functions ignore their ``**kwargs``.
IGNORING = ("basicsr.metrics", "basicsr.losses", "bidiffsr_arch")


def check_options(options: dict[str, Any], path: str, is_train: bool) -> AnyFile:
    """Check every block against the code that reads it.

    Args:
        options: as returned by `load_options`. Options that this machine does not support and a run does not need are
            switched off in them, with a warning.
        path: the option file's name, for messages.
        is_train: whether they are for `basicsr train`.
    Returns:
        The checked options; blocks that another package's model reads are open in them.
    Raises:
        InputError: one line: keys, what was expected, what was found; an unknown key with the nearest known one.
    """
    from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

    from bidiffsr_arch.compat.options import make_possible

    registered(MODEL_REGISTRY, options["model_type"], f"{path}: model_type")
    for phase, data in options["datasets"].items():
        registered(DATASET_REGISTRY, data["type"], f"{path}: datasets: {phase}: type")
    file = check_file(options, path, is_train)
    if not isinstance(file, OptionFile):
        return file
    wrong = [*_wrong_metrics(options, path), *_wrong_network(options, path), *_wrong_sampling(file)]
    wrong += _wrong_training(options, path) if is_train else []
    if not wrong:
        make_possible(options, is_train)
        wrong += unmet_requirements(file, options, is_train)
    if wrong:
        raise InputError(one_line(wrong, path))
    return file


def registered(registry: Any, name: str, place: str) -> Any:
    """The entry of this name in one of BasicSR's registries.

    Raises:
        InputError: there is none; the message names the key and the nearest names.
    """
    try:
        return registry.get(name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _wrong_network(options: Mapping[str, Any], path: str) -> Iterator[str]:
    from basicsr.utils.registry import ARCH_REGISTRY

    block = options.get("network_g")
    if block is None:
        return
    network = registered(ARCH_REGISTRY, block["type"], f"{path}: network_g: type")
    is_ours = block["type"] in archs.__all__
    wrong = list(wrong_arguments(network, block, "network_g", kinds=KINDS | SIZES if is_ours else KINDS))
    wrong = wrong or list(_wrong_inputs(network, options["model_type"]))
    yield from wrong or (_build(network, block, options) if is_ours else ())
    if (options.get("val") or {}).get("packed"):
        yield from _without_packer(network)


def _wrong_inputs(network: Any, model: str) -> Iterator[str]:
    """Check that the model can call the network, which a diffusion network and a direct one need differently."""
    if model not in INPUTS:
        return
    forward = inspect.signature(network.forward)
    try:
        forward.bind(network, *INPUTS[model])
    except TypeError:
        inputs, own = ", ".join(INPUTS[model]), ", ".join(list(forward.parameters)[1:])
        yield f"expected network_g: type to be a network of ({inputs}) for {model}, got {network.__name__} of ({own})"


def _without_packer(network: type) -> Iterator[str]:
    """Check that the network can be packed for ``val: packed``, before training reaches its first validation."""
    from bidiffsr_arch.packed.registry import packer_for

    try:
        packer_for(network)
    except InputError as error:
        yield f"val: packed: {error}"


def _build(network: type, block: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[str]:
    """Build a network on the meta device and call it, to find errors that its signature does not show."""
    import torch

    is_gray = all(data.get("color") == "y" for data in options["datasets"].values())
    channels = 1 if is_gray and block.get("out_channel") == 1 else 3
    try:
        with torch.device("meta"):
            built = network(**{key: value for key, value in block.items() if key != "type"}).eval()
            image = torch.empty(1, channels, *[getattr(built, "multiple", 1)] * 2)
            inputs = [image] if is_direct(built) else [image, image, torch.zeros(1, dtype=torch.long)]
            shape = built(*inputs).shape
    except InputError as error:
        yield str(error)
    except Exception as error:  # torch's layers may raise anything for impossible sizes
        yield (
            f"network_g cannot be built, or run on images of {channels} channels ({first_line(error)}); see the values "
            f"of {block['type']}"
        )
    else:
        if shape[1] != channels:
            yield f"expected network_g: out_channel to be {channels}, as images have channels, got {shape[1]}"


def _wrong_sampling(file: OptionFile) -> Iterator[str]:
    """Sampler options with which `BIDiffSRModel` would fail at its first validation."""
    from bidiffsr_arch.diffusion.schedule import Diffusion

    if isinstance(file, DiffusionFile) and file.model_type == "BIDiffSRModel" and set(file.datasets) - {"train"}:
        try:
            Diffusion(file.beta_schedule, file.time_input).rehearse()
        except InputError as error:
            yield str(error)


def _wrong_metrics(options: Mapping[str, Any], path: str) -> Iterator[str]:
    from basicsr.utils.registry import METRIC_REGISTRY

    for name, block in ((options.get("val") or {}).get("metrics") or {}).items():
        place = f"val: metrics: {name}"
        metric = registered(METRIC_REGISTRY, block["type"], f"{path}: {place}: type")
        if metric.__module__.startswith("basicsr.metrics") and metric.__name__.endswith("_pt"):
            instead = metric.__name__.removesuffix("_pt")
            yield f"expected {place}: type to be a metric of saved images, got {metric.__name__}; use {instead}"
            continue
        wrong = list(wrong_arguments(metric, block, place, given=("img", "img2"), own=("type", "better", "crop_border"),
                                     ignores_others=metric.__module__.startswith(IGNORING)))  # fmt: skip
        yield from wrong or (wrong_metric(block, place) if metric is calculate_iqa else ())


def _wrong_training(options: Mapping[str, Any], path: str) -> Iterator[str]:
    """Mistakes in the blocks that only training reads."""
    from basicsr.utils.registry import LOSS_REGISTRY
    from torch import optim

    from bidiffsr_arch.compat.optimization import find_scheduler, rehearse

    train = options["train"]
    losses = [(name, train[name]) for name in ("pixel_opt", "perceptual_opt") if train.get(name)]
    losses += [("loss_schedule", change) for change in train.get("loss_schedule") or ()]
    for name, block in losses:
        place = f"train: {name}"
        if "type" not in block:
            yield f"expected the key type in {place}:, found none"
            continue
        own = ("type", "from_iter") if name == "loss_schedule" else ("type",)
        loss = registered(LOSS_REGISTRY, block["type"], f"{path}: {place}: type")
        yield from wrong_arguments(loss, block, place, own=own, ignores_others=loss.__module__.startswith(IGNORING))
    optimizer = getattr(optim, train["optim_g"]["type"])
    wrong = list(wrong_arguments(optimizer, train["optim_g"], "train: optim_g", given=("params",)))
    try:
        scheduler = find_scheduler(train["scheduler"]["type"])
    except InputError as error:
        wrong.append(f"train: scheduler: type: {error}")
    else:
        wrong += wrong_arguments(scheduler, train["scheduler"], "train: scheduler", given=("optimizer",))
    yield from wrong
    if not wrong and (failure := rehearse(train)):
        place, cause = failure
        found = f"{train[place]} ({first_line(cause)})"
        yield f"expected train: {place} to work for total_iter {train['total_iter']}, got {found}"

"""Print what a bug report needs: versions, device, thread settings, patches of BasicSR, registered classes."""

import argparse
import os
import platform
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from textwrap import indent

from bidiffsr_arch.cli.table import text_table
from bidiffsr_arch.errors import InputError

EXAMPLE = "basicsr doctor"
PACKAGES = (
    "bidiffsr_arch",
    "basicsr",
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "diffusers",
    "lpips",
    "numba",
    "safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments but --help."""


def run(args: argparse.Namespace) -> None:
    """Print the report, which also names a BasicSR or plugin that cannot be imported."""
    from bidiffsr_arch.compat import applied

    section("versions", [("python", platform.python_version()), *((name, installed(name)) for name in PACKAGES)])
    section("device", devices())
    section("threads", threads())
    entries = registered()
    section("patches of BasicSR and torchvision", applied())
    section("registered", entries)
    section("LPIPS", [("alex", lpips_weights())])


def section(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a heading and aligned rows."""
    print(f"{title}:", indent(text_table(rows or [("none", "")]), "  "), sep="\n")


def installed(package: str) -> str:
    """A package's version, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def devices() -> list[tuple[str, str]]:
    """The devices that torch can compute on."""
    import torch

    rows = [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {torch.backends.cpu.get_cpu_capability()}"
    return [*rows, ("cpu", cpu)]


def threads() -> list[tuple[str, str]]:
    """How the threads of torch, and of Numba where it is installed, wait for each other."""
    from bidiffsr_arch.threads import policies

    if find_spec("numba"):
        import numba

        numba.get_num_threads()  # loads Numba's threads
    return policies()


def registered() -> list[tuple[str, str]]:
    """The registered names by registry and package; for BasicSR's own classes only their number."""
    from bidiffsr_arch.compat import require_basicsr
    from bidiffsr_arch.plugins import failed_plugins, load_plugins

    try:
        require_basicsr("training")
    except InputError as error:
        return [("nothing", str(error))]
    from basicsr.utils import registry

    load_plugins()
    rows = [(f"plugin {name} cannot be imported", reason) for name, reason in failed_plugins().items()]
    for label in ("ARCH", "MODEL", "DATASET", "METRIC", "LOSS"):
        by_package = defaultdict(list)
        for name, entry in getattr(registry, f"{label}_REGISTRY"):
            by_package[entry.__module__.split(".")[0]].append(name)
        for package, names in sorted(by_package.items()):
            shown = f"{len(names)} of its own" if package == "basicsr" else ", ".join(sorted(names))
            rows.append((f"{label.lower()} ({package})", shown))
    return [*rows, *not_resumed_exactly()]


def not_resumed_exactly() -> list[tuple[str, str]]:
    """Models with random state of their own, which training states do not contain."""
    from basicsr.utils.registry import MODEL_REGISTRY

    from bidiffsr_arch.training.random_states import own_random_state

    states = {name.removesuffix("_basicsr"): own_random_state(model) for name, model in MODEL_REGISTRY}
    return [(name, f"not resumed exactly: has {state}, which is not saved") for name, state in states.items() if state]


def lpips_weights() -> str:
    """Where AlexNet's weights are, or how to get them."""
    from bidiffsr_arch.metrics.lpips import WeightsMissing, find_weights

    try:
        return f"weights in {find_weights('alex')}"
    except WeightsMissing as missing:
        return str(missing)

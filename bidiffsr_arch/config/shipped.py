"""The option files of this package, and the folders that are filled into them."""

import os
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path

from bidiffsr_arch.errors import InputError, nearest

BENCHMARK_FOLDER = "datasets/benchmark"
BENCHMARK_VARIABLE = "BIDIFFSR_BENCHMARK_ROOT"
WEIGHTS_FOLDER = "bidiffsr_arch/weights"


def place_benchmarks(options: OrderedDict) -> None:
    """Replace `datasets/benchmark` in every `dataroot_*` by the folder in the environment variable, if it is set."""
    root = os.environ.get(BENCHMARK_VARIABLE)
    if not root:
        return
    for dataset in options["datasets"].values():
        for key, value in dataset.items():
            if key.startswith("dataroot_"):
                is_list = isinstance(value, list)
                dataset[key] = [_moved(folder, root) for folder in value] if is_list else _moved(value, root)


def _moved(folder: str, root: str) -> str:
    if not isinstance(folder, str):
        return folder
    head, tail = folder[: len(BENCHMARK_FOLDER)], folder[len(BENCHMARK_FOLDER) :]
    return root.rstrip("/") + tail if head == BENCHMARK_FOLDER and (not tail or tail.startswith("/")) else folder


def place_weights(options: OrderedDict) -> None:
    """Replace `bidiffsr_arch/weights` in `path: pretrain_network_g` by the folder of the installed package, unless the
    path exists, as in a clone."""
    path = options["path"].get("pretrain_network_g")
    if isinstance(path, str) and path.startswith(f"{WEIGHTS_FOLDER}/") and not Path(path).exists():
        own = files("bidiffsr_arch") / "weights"
        options["path"]["pretrain_network_g"] = str(own / path.removeprefix(f"{WEIGHTS_FOLDER}/"))


def shipped() -> list[str]:
    """Names of the shipped option files without `.yml`, such as `train_SR3_x4` and `ablation/pairs_1`."""
    folder = files("bidiffsr_arch.options")
    found = []
    for entry in folder.iterdir():
        if entry.name.endswith(".yml"):
            found.append(entry.name)
        elif entry.is_dir():
            found += [f"{entry.name}/{inner.name}" for inner in entry.iterdir() if inner.name.endswith(".yml")]
    return sorted(name.removesuffix(".yml") for name in found)


def shipped_path(name: str) -> Path:
    """Path of the shipped option file `name` (with or without `.yml`).

    Raises:
        InputError: no such file; the nearest name is given.
    """
    names = shipped()
    plain = name.removesuffix(".yml").removeprefix("options/")
    if plain not in names:
        hint = nearest(plain, names, cutoff=0, hint="; did you mean {}?")
        raise InputError(f"no option file named {name} is shipped{hint} (`basicsr options` lists all)")
    return Path(str(files("bidiffsr_arch.options").joinpath(f"{plain}.yml")))

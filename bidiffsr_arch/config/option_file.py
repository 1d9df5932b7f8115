"""Option files: BasicSR's YAML, read safely, with `base:` files and `a:b=value` overrides.

Nothing in an option file or an override can run code: YAML's plain types are all there is. `1e-4`, a text to stock
BasicSR, is a number here. The files that this package ships are found by name (`shipped`, `shipped_path`).
"""

import difflib
import os
import re
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path

import yaml

from bidiffsr_arch.errors import InputError

BENCHMARK_FOLDER = "datasets/benchmark"
BENCHMARK_VARIABLE = "BIDIFFSR_BENCHMARK_ROOT"
WEIGHTS_FOLDER = "bidiffsr_arch/weights"

REQUIRED_KEYS = ("name", "model_type", "num_gpu", "datasets", "path")
MAPPING_KEYS = ("datasets", "network_g", "beta_schedule", "path", "train", "val", "logger", "dist_params", "expected")
KNOWN_KEYS = (*REQUIRED_KEYS, *MAPPING_KEYS, "scale", "plugins", "paper_row", "manual_seed", "find_unused_parameters",
              "diffuse", "residual_scale", "timestep_sampling", "time_input", "data_range")  # fmt: skip
MODELS_WITHOUT_NETWORK = ("BicubicModel",)
MISSPELT = 0.8  # difflib ratio from which an unknown top-level key counts as a misspelt known one


class Replacement(OrderedDict):
    """A mapping tagged `!replace`: it takes the place of the base file's mapping instead of being merged into it."""


class OptionLoader(yaml.SafeLoader):
    """YAML's safe loader with ordered mappings, YAML 1.2's floats, and no duplicate keys."""

    def construct_object(self, node: yaml.Node, deep: bool = False):
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # how PyYAML meets `!!int x`, `!!bool x`, 2024-13-45
            raise yaml.constructor.ConstructorError(
                None, None, f"cannot read {node.value!r}", node.start_mark
            ) from error

    def mapping(self, node: yaml.MappingNode, kind: type[OrderedDict] = OrderedDict) -> OrderedDict:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"expected a text as key, got {key!r}; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here a second time; keep one", key_node.start_mark
                )
            seen.add(key)
        self.flatten_mapping(node)  # `<<: *anchor`: the anchor's keys come first, the mapping's own win
        return kind((self.construct_object(key, deep=True), self.construct_object(value, deep=True))
                    for key, value in node.value)  # fmt: skip

    def replacement(self, node: yaml.MappingNode) -> Replacement:
        return self.mapping(node, Replacement)

    def refuse(self, node: yaml.Node) -> None:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        problem = f"the tag {tag} is refused, an option file holds data only; remove it"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


OptionLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, OptionLoader.mapping)
OptionLoader.add_constructor("!replace", OptionLoader.replacement)
OptionLoader.add_constructor(None, OptionLoader.refuse)
OptionLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


class OptionDumper(yaml.SafeDumper):
    """Writes options in their order, so that any YAML reader (stock BasicSR's, too) gets the same values."""

    def ignore_aliases(self, data) -> bool:
        return True


OptionDumper.add_multi_representer(OrderedDict, lambda dumper, data: dumper.represent_dict(data.items()))


def _parse(text: str, source: str):
    """The value of a YAML text; `source` names it in an error."""
    try:
        return yaml.load(text, Loader=OptionLoader)  # noqa: S506 (a subclass of SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: not readable as YAML: {str(error).splitlines()[0]}") from error


def read_yaml(path: str | os.PathLike) -> OrderedDict:
    """One YAML file whose top is a mapping, without regard to `base:`.

    Raises:
        InputError: the file is missing, not text, not YAML, not a mapping, or asks for something to be executed.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"option file {path} does not exist; `basicsr options` lists those that are shipped"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a text file in UTF-8, got other bytes") from error
    except OSError as error:
        raise InputError(f"option file {path} cannot be read: {error.strerror}") from error
    options = _parse(text, str(path))
    if not isinstance(options, OrderedDict):
        found = "nothing" if options is None else type(options).__name__
        raise InputError(f"{path}: expected `key: value` lines at the top level, got {found}")
    return options


def _merge(base: OrderedDict, child: OrderedDict) -> OrderedDict:
    """`child` over `base`: mappings are merged key by key, everything else (lists, null) is the child's."""
    merged = OrderedDict(base)
    for key, value in child.items():
        both_mappings = isinstance(value, OrderedDict) and isinstance(base.get(key), OrderedDict)
        merged[key] = _merge(base[key], value) if both_mappings and not isinstance(value, Replacement) else value
    return merged


def merged_options(path: str | os.PathLike, _children: tuple[Path, ...] = ()) -> OrderedDict:
    """The options of `path` over those of its `base:` file, if it names one (relative to `path`), and so on.

    Raises:
        InputError: as `read_yaml`; besides, `base:` is not a text, or leads in a circle.
    """
    options = read_yaml(path)
    if "base" not in options:
        return options
    base = options.pop("base")
    if not isinstance(base, str):
        raise InputError(f"{path}: expected `base:` to name one option file, got {base!r}")
    here = Path(path).expanduser().resolve()
    parent = here.parent / Path(base).expanduser()
    lineage = (*_children, here)
    if parent.resolve() in lineage:
        raise InputError(f"{path}: `base: {base}` leads in a circle; a chain of bases has to end")
    if not parent.is_file():
        raise InputError(f"{path}: `base: {base}` does not exist; it is looked for in {here.parent}")
    return _merge(merged_options(parent, lineage), options)


def _override(options: OrderedDict, entry: str) -> None:
    """Apply one `a:b:c=value` in place; the key itself may be new, its parents may not."""
    keys, equals, text = entry.partition("=")
    names = [name.strip() for name in keys.split(":")]
    if not equals or not all(names):
        raise InputError(f"--force_yml: expected key:key=value, got {entry!r}, as in train:ema_decay=0.999")
    place = options
    for depth, name in enumerate(names[:-1], 1):
        if name not in place:
            near = difflib.get_close_matches(name, place, n=1, cutoff=0)
            hint = f"; the nearest key there is {near[0]!r}" if near else ""
            raise InputError(f"--force_yml {entry}: there is no {':'.join(names[:depth])!r} in the option file{hint}")
        place = place[name]
        if not isinstance(place, OrderedDict):
            raise InputError(
                f"--force_yml {entry}: {':'.join(names[:depth])!r} is {place!r}, nothing with keys of its own"
            )
    none = text.strip().lower() == "none"  # BasicSR's spelling; YAML knows ~ and null only
    place[names[-1]] = None if none else _parse(text.strip(), f"--force_yml {entry}")


def _move_benchmarks(options: OrderedDict, root: str) -> None:
    """Put `root` in the place of `datasets/benchmark` in every `dataroot_*`."""
    for dataset in options["datasets"].values():
        for key, value in dataset.items():
            if key.startswith("dataroot_") and isinstance(value, str):
                head, tail = value[: len(BENCHMARK_FOLDER)], value[len(BENCHMARK_FOLDER) :]
                if head == BENCHMARK_FOLDER and (not tail or tail.startswith("/")):
                    dataset[key] = root.rstrip("/") + tail


def _find_own_weights(options: OrderedDict) -> None:
    """Put the package's folder of weights, wherever it is installed, in the place of `bidiffsr_arch/weights` in
    `path: pretrain_network_g`, unless that is there, as in a clone."""
    path = options["path"].get("pretrain_network_g")
    if isinstance(path, str) and path.startswith(f"{WEIGHTS_FOLDER}/") and not Path(path).exists():
        own = files("bidiffsr_arch") / "weights"
        options["path"]["pretrain_network_g"] = str(own / path.removeprefix(f"{WEIGHTS_FOLDER}/"))


def _check(options: OrderedDict, path: str | os.PathLike) -> None:
    """What every run needs, before BasicSR meets it with a KeyError."""
    for key in options:
        near = difflib.get_close_matches(key, KNOWN_KEYS, n=1, cutoff=MISSPELT)
        if near and key not in KNOWN_KEYS and not key.startswith("network_"):
            raise InputError(f"{path}: unknown key {key!r}; did you mean {near[0]!r}?")
    required = list(REQUIRED_KEYS)
    if options.get("model_type") not in MODELS_WITHOUT_NETWORK:
        required.append("network_g")
    missing = [key for key in required if options.get(key) is None]
    if missing:
        raise InputError(f"{path}: expected the key(s) {', '.join(missing)}, found none; see `basicsr options`")
    for key in MAPPING_KEYS:
        if options.get(key) is not None and not isinstance(options[key], OrderedDict):
            raise InputError(f"{path}: expected `{key}:` to hold keys of its own, got {options[key]!r}")
    if not options.get("train") and not options.get("val"):
        raise InputError(f"{path}: expected a `train:` or a `val:` block, found neither")
    if options.get("network_g") is not None and "type" not in options["network_g"]:
        raise InputError(f"{path}: expected `type:` in `network_g:`, the network's class, such as BIDiffSRUNet")
    for phase, dataset in options["datasets"].items():
        if not isinstance(dataset, OrderedDict) or "type" not in dataset or "name" not in dataset:
            raise InputError(f"{path}: expected `name:` and `type:` in `datasets: {phase}:`, got {dataset!r}")
        if "PairedImageDataset" in str(dataset["type"]) and options.get("scale") is None:
            raise InputError(f"{path}: expected the key scale (HR size by LR size), found none")
    if options.get("scale") is not None and (type(options["scale"]) is not int or options["scale"] < 1):
        raise InputError(f"{path}: expected `scale` to be a whole number from 1 on, got {options['scale']!r}")
    gpus = options["num_gpu"]
    if gpus != "auto" and (type(gpus) is not int or gpus < 0):
        raise InputError(f"{path}: expected `num_gpu` to be auto or a whole number from 0 on, got {gpus!r}")


def load_options(path: str | os.PathLike, overrides: list[str] | None = None) -> OrderedDict:
    """Options of one run: the file over its bases, then the overrides, then the benchmark folder of the environment.

    Args:
        path: an option file.
        overrides: entries such as `train:ema_decay=0.999` (BasicSR's --force_yml); values are YAML.

    The environment variable BIDIFFSR_BENCHMARK_ROOT takes the place of a leading `datasets/benchmark` in `dataroot_*`,
    and the package's own folder that of a leading `bidiffsr_arch/weights` in `pretrain_network_g`.

    Raises:
        InputError: one line that names the file and what was expected there.
    """
    options = merged_options(path)
    for entry in overrides or []:
        _override(options, entry)
    _check(options, path)
    if root := os.environ.get(BENCHMARK_VARIABLE):
        _move_benchmarks(options, root)
    _find_own_weights(options)
    return options


def dump_options(options: OrderedDict) -> str:
    """Options as YAML that stock BasicSR reads to the same values."""
    return yaml.dump(options, Dumper=OptionDumper, sort_keys=False, allow_unicode=True, width=120)


def shipped() -> list[str]:
    """Names of the shipped option files, without `.yml`; those in a folder as `folder/name`."""
    folder = files("bidiffsr_arch.options")
    found = []
    for entry in folder.iterdir():
        if entry.name.endswith(".yml"):
            found.append(entry.name)
        elif entry.is_dir():
            found += [f"{entry.name}/{inner.name}" for inner in entry.iterdir() if inner.name.endswith(".yml")]
    return sorted(name.removesuffix(".yml") for name in found)


def shipped_path(name: str) -> Path:
    """Where the shipped option file `name` (with or without `.yml`) lies on disk.

    Raises:
        InputError: no such file; the nearest name is given.
    """
    names = shipped()
    plain = name.removesuffix(".yml").removeprefix("options/")
    if plain not in names:
        near = difflib.get_close_matches(plain, names, n=1, cutoff=0)
        hint = f"did you mean {near[0]}?" if near else "none are installed"
        raise InputError(f"no option file named {name} is shipped; {hint} (`basicsr options` lists all)")
    return Path(str(files("bidiffsr_arch.options").joinpath(f"{plain}.yml")))

"""Option files: BasicSR's YAML, read safely, with `base:` files and `a:b=value` overrides.

Option files and overrides cannot run code: only YAML's plain types are allowed. `1e-4`, a string in stock BasicSR, is a
number here.
"""

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import yaml

from bidiffsr_arch.errors import InputError, first_line, nearest


class Replacement(OrderedDict):
    """A mapping tagged `!replace`: it takes the place of the base file's mapping instead of being merged into it."""


class OptionLoader(yaml.SafeLoader):
    """YAML's safe loader with ordered mappings, YAML 1.2's floats, and no duplicate keys."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As in PyYAML, but all values that cannot be read raise `ConstructorError`."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # as for `!!int x`, `!!bool x`, 2024-13-45
            raise yaml.constructor.ConstructorError(
                None, None, f"cannot read {node.value!r}", node.start_mark
            ) from error

    def mapping(self, node: yaml.MappingNode) -> OrderedDict:
        """An ordered mapping whose keys are unique strings."""
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"expected a string as key, got {key!r}; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is defined twice; keep one", key_node.start_mark
                )
            seen.add(key)
        self.flatten_mapping(node)  # `<<: *anchor`: the anchor's keys come first, the mapping's own win
        return OrderedDict((self.construct_object(key, deep=True), self.construct_object(value, deep=True))
                           for key, value in node.value)  # fmt: skip

    def replacement(self, node: yaml.MappingNode) -> Replacement:
        """A mapping with the tag `!replace`."""
        return Replacement(self.mapping(node))

    def refuse(self, node: yaml.Node) -> None:
        """Refuse any other tag."""
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
    """Writes options in order, such that every YAML reader, stock BasicSR's included, reads the same values."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write values that occur twice twice."""
        return True


OptionDumper.add_multi_representer(OrderedDict, lambda dumper, data: dumper.represent_dict(data.items()))


def parse(text: str, source: str) -> Any:
    """The value of a YAML text; `source` names it in an error."""
    try:
        return yaml.load(text, Loader=OptionLoader)  # noqa: S506 (a subclass of SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: not readable as YAML: {first_line(error)}") from error


def read_yaml(path: str | os.PathLike) -> OrderedDict:
    """Read a YAML file whose top level is a mapping; `base:` is not followed.

    Raises:
        InputError: the file is missing, not text, not YAML, not a mapping, or has a tag that would run code.
    """
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"option file {path} does not exist; `basicsr options` lists those that are shipped"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a text file in UTF-8, got other bytes") from error
    except OSError as error:
        raise InputError(f"option file {path} cannot be read: {error.strerror}") from error
    options = parse(text, str(path))
    if not isinstance(options, OrderedDict):
        found = "nothing" if options is None else type(options).__name__
        raise InputError(f"{path}: expected `key: value` lines at the top level, got {found}")
    return options


def _merge(base: OrderedDict, child: OrderedDict) -> OrderedDict:
    """Merge `child` into `base`: mappings key by key; other values of the child, such as lists and null, replace those
    of the base."""
    merged = OrderedDict(base)
    for key, value in child.items():
        both_mappings = isinstance(value, OrderedDict) and isinstance(base.get(key), OrderedDict)
        merged[key] = _merge(base[key], value) if both_mappings and not isinstance(value, Replacement) else value
    return merged


def merged_options(path: str | os.PathLike, _children: tuple[Path, ...] = ()) -> OrderedDict:
    """The options of `path` merged into those of its `base:` file, if it has one (relative to `path`), recursively.

    Raises:
        InputError: as `read_yaml`, or `base:` is not a string, or the chain of base files is circular.
    """
    options = read_yaml(path)
    if "base" not in options:
        return options
    base = options.pop("base")
    if not isinstance(base, str):
        raise InputError(f"{path}: expected `base:` to name one option file, got {base!r}")
    here = Path(os.path.expanduser(path)).resolve()
    parent = here.parent / Path(os.path.expanduser(base))
    lineage = (*_children, here)
    if parent.resolve() in lineage:
        raise InputError(f"{path}: `base: {base}` forms a cycle; a chain of base files must end")
    if not parent.is_file():
        raise InputError(f"{path}: `base: {base}` does not exist; it is looked for in {here.parent}")
    return _merge(merged_options(parent, lineage), options)


def override(options: OrderedDict, entry: str) -> None:
    """Apply one `a:b:c=value` in place; the key itself may be new, its parents may not."""
    keys, equals, text = entry.partition("=")
    names = [name.strip() for name in keys.split(":")]
    if not equals or not all(names):
        raise InputError(f"--force_yml: expected key:key=value, got {entry!r}, as in train:ema_decay=0.999")
    place = options
    for depth, name in enumerate(names[:-1], 1):
        if name not in place:
            hint = nearest(name, place, cutoff=0, hint="; the nearest key there is {!r}")
            raise InputError(f"--force_yml {entry}: there is no {':'.join(names[:depth])!r} in the option file{hint}")
        place = place[name]
        if not isinstance(place, OrderedDict):
            raise InputError(f"--force_yml {entry}: {':'.join(names[:depth])!r} is {place!r}, which has no keys")
    none = text.strip().lower() == "none"  # BasicSR's spelling; YAML knows ~ and null only
    place[names[-1]] = None if none else parse(text.strip(), f"--force_yml {entry}")


def dump_options(options: OrderedDict) -> str:
    """Options as YAML that stock BasicSR reads to the same values."""
    return yaml.dump(options, Dumper=OptionDumper, sort_keys=False, allow_unicode=True, width=120)

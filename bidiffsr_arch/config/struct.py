"""A block of options as a typed, frozen struct, whose mistakes are reported in one line."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from bidiffsr_arch.config.words import BLOCK, Schema, resolve, words
from bidiffsr_arch.errors import InputError, nearest

Own = TypeVar("Own", bound="Struct")
Place = tuple[str | int, ...]
RELATION = "relation"


class Struct(BaseModel):
    """A block of options. Fields have types, bounds, defaults and descriptions; unknown keys are refused.

    Subclasses check relations between values in `_relations`.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def read(cls: type[Own], data: Mapping[str, Any], source: str = "", place: str = "") -> Own:
        """Check a block.

        Args:
            data: keys and values, as YAML gives them.
            source: names the file in an error; place: the block, such as ``train``.
        Raises:
            InputError: one line for everything that is wrong.
        """
        found, wrong = cls.examine(data, place)
        if found is None:
            raise InputError(one_line([sentence for _, sentence in wrong], source))
        return found

    @classmethod
    def part_of(cls: type[Own], data: Mapping[str, Any], source: str = "", place: str = "") -> Own:
        """The struct of those keys of a larger block that are fields of this struct."""
        own = cls.names()
        return cls.read({key: value for key, value in data.items() if key in own}, source, place)

    @classmethod
    def examine(cls: type[Own], data: Mapping[str, Any], place: str = "") -> tuple[Own | None, list[tuple[Place, str]]]:
        """The struct of a block, or all mistakes: the path of each wrong key, and a sentence."""
        try:
            return cls.model_validate(dict(data)), []
        except ValidationError as error:
            return None, mistakes(_schema(cls), error.errors(include_url=False), place)

    @classmethod
    def names(cls) -> set[str]:
        """All names of the fields, aliases included."""
        aliases = [field.validation_alias for field in cls.model_fields.values()]
        choices = [alias.choices for alias in aliases if isinstance(alias, AliasChoices)]
        return {*cls.model_fields, *(str(name) for names in choices for name in names)}

    def _relations(self) -> Iterator[str]:
        """Violated relations between values, one sentence each."""
        yield from ()

    @model_validator(mode="after")
    def _hold(self: Own, info: ValidationInfo) -> Own:
        if broken := list(self._relations()):
            raise PydanticCustomError(RELATION, "{sentences}", {"sentences": "; ".join(broken)})
        return self


@cache
def _schema(struct: type[Struct]) -> Schema:
    return struct.model_json_schema()


def one_line(sentences: list[str], source: str) -> str:
    """Join sentences into one line that begins with the name of the file."""
    text = "; ".join(sentences)
    return f"{source}: {text}" if source else text


def mistakes(schema: Schema, errors: list[ErrorDetails], place: str) -> list[tuple[Place, str]]:
    """A sentence for each mistake: the key, what was expected, what was found, and the nearest known key."""
    found: dict[Place, str] = {}
    meant = set()
    definitions = schema.get("$defs", {})
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    for error in unknown:
        *parents, key = _path(error)
        known = _known(_walk(schema, error["loc"][:-1], definitions), definitions)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
        meant.add((*parents, *near))
        block = _shown(place, parents)
        where = f"in {block}:" if block else "at the top level"
        hint = f"; did you mean {near[0]!r}?" if near else ""
        path = (*parents, key)
        found[path] = f"unknown key {key!r} {where}{hint} Known: {', '.join(sorted(known))}"
    for error in (error for error in errors if error["type"] != "extra_forbidden"):
        path = _path(error)
        if error["type"] == "missing" and path in meant:
            continue
        found.setdefault(path, _sentence(schema, error, path, place))
    return list(found.items())


def _sentence(schema: Schema, error: ErrorDetails, path: Place, place: str) -> str:
    definitions = schema.get("$defs", {})
    if error["type"] == "missing":
        *parents, key = path
        block = _shown(place, parents)
        hint = nearest(str(key), error["input"], hint="; is {!r} meant?")
        return f"expected the key `{key}:`{f' in `{block}:`' if block else ''}, found none{hint}"
    if error["type"] == RELATION:
        return error["msg"]
    expected, value, length = words(_walk(schema, path, definitions), definitions), error["input"], len(path)
    while length and isinstance(path[length - 1], int):  # show the whole list
        length -= 1
    if length < len(path):
        expected = words(_walk(schema, path[:length], definitions), definitions)
    item = "" if length == len(path) else " there"
    shown = _shown(place, path[:length])
    if expected.startswith(BLOCK):
        return f"expected `{shown}:` to hold {expected}, got {value!r}"
    shown = f"`{shown}`" if shown.startswith("expected") else shown  # a block named `expected`
    return f"expected {shown} to be {expected}, got {value!r}{item}"


def _path(error: ErrorDetails) -> Place:
    """Path of an error, without the tags of alternatives, which are in angle brackets."""
    return tuple(part for part in error["loc"] if not str(part).startswith("<"))


def _shown(place: str, path: Place | list) -> str:
    return ": ".join([*([place] if place else []), *map(str, path)])


def _walk(schema: Schema, path: Place | list, definitions: Schema) -> Schema:
    """The schema at a path; {} if it is open. ``<NAME>`` chooses the alternative of that name."""
    for part in path:
        if str(part).startswith("<"):
            schema = definitions.get(str(part)[1:-1], {})
        else:
            schema = _inner(resolve(schema, definitions), part, definitions)
    return schema


def _inner(schema: Schema, part: str | int, definitions: Schema) -> Schema:
    for option in schema.get("anyOf", schema.get("oneOf", ())):
        inner = _inner(resolve(option, definitions), part, definitions)
        if inner:
            return inner
    if isinstance(part, int):
        return schema.get("items", {})
    further = schema.get("additionalProperties")
    return schema.get("properties", {}).get(part, further if isinstance(further, Mapping) else {})


def _known(schema: Schema, definitions: Schema) -> list[str]:
    """The keys that a block may have."""
    schema = resolve(schema, definitions)
    options = schema.get("anyOf", schema.get("oneOf", ()))
    return [*schema.get("properties", {}), *(key for option in options for key in _known(option, definitions))]

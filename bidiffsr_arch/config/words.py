"""JSON Schema in words, for errors and tables: `{"type": "integer", "minimum": 1}` is "an integer of at least 1"."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

BLOCK = "keys of its own"
COUNTS = {2: "two", 3: "three"}
PLAIN = {"string": "a string", "boolean": "true or false", "object": BLOCK, "null": "~"}
NUMBERS = {"integer": "an integer", "number": "a number"}


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """A schema with the definition that it refers to, if it refers to one."""
    reference = schema.get("$ref")
    return {**definitions[reference.rpartition("/")[2]], **schema} if reference else schema


def words(schema: Schema, definitions: Schema) -> str:
    """Describe the values that a schema accepts.

    Args:
        definitions: the `$defs` of the whole schema.
    """
    schema = resolve(schema, definitions)
    if "errorMessage" in schema:
        return schema["errorMessage"].removeprefix("expected ")
    if options := schema.get("anyOf", schema.get("oneOf")):
        return _any(options, definitions)
    if names := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return f"one of {', '.join(map(str, names))}" if len(names) > 1 else str(names[0])
    kind = schema.get("type")
    if kind in NUMBERS:
        return f"{NUMBERS[kind]}{_bounds(schema)}"
    if kind == "array":
        return _list(schema, definitions)
    return PLAIN.get(str(kind), "anything")


def _any(options: list[Schema], definitions: Schema) -> str:
    """Alternatives, with null as ~ at the end."""
    texts = list(dict.fromkeys(words(option, definitions) for option in options))
    return ", or ".join(sorted(texts, key=lambda text: text == PLAIN["null"]))


def _bounds(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:.12g}"
    if low is not None and below is not None:
        return f" from {low:g} to below {below:g}"
    if above is not None and high is not None:
        return f" above {above:g} and at most {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    return "" if above is None else f" above {above:g}"


def _list(schema: Schema, definitions: Schema) -> str:
    item = words(schema.get("items", {}), definitions).removeprefix("a ").removeprefix("an ")
    noun, *bounds = item.split(" ", 1)
    plural = "blocks" if item.startswith(BLOCK) else " ".join([f"{noun}s", *bounds])
    least, most = schema.get("minItems"), schema.get("maxItems")
    return f"{COUNTS.get(least, least)} {plural}" if least is not None and least == most else f"a list of {plural}"

"""Types of options. Error messages describe them in words made from their JSON Schema (`words`)."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema


def _whole(value: Any) -> Any:
    """Convert an integral float such as 5e5, as YAML reads it, to the integer that is expected."""
    return int(value) if type(value) is float and value.is_integer() else value


def expected(words: str) -> dict[str, str]:
    """A description of the expected value, for errors here and in editors that support this key of VS Code."""
    return {"errorMessage": f"expected {words}"}


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL")
    return value


def _name(value: str) -> str:
    if value in {"..", "."} or os.sep in value:
        raise ValueError("a path")
    return value


def _template(value: str) -> str:
    try:
        filled = value.format("name")
    except (LookupError, AttributeError) as error:
        raise ValueError("no template") from error
    if "name" not in filled or os.sep in value:
        raise ValueError("no place for a name")
    return value


def _gpus(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 0):
        raise ValueError("no number of GPUs")
    return value


def _roots(value: Any) -> Any:
    for root in value if isinstance(value, list) and value else [value]:
        if not isinstance(root, str) or not root or "\0" in root:
            raise ValueError("no folder")
    return value


def _open(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("no mapping")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Index = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Steps = Annotated[int, Field(ge=1, le=100_000), BeforeValidator(_whole)]
# BasicSR passes these to range() and similar functions, which accept no float.
Items = Annotated[int, Field(ge=1, json_schema_extra=expected("an integer of at least 1, without a decimal point"))]
Workers = Annotated[int, Field(ge=0, json_schema_extra=expected("an integer of at least 0, without a decimal point"))]
Seed = Annotated[int, Field(ge=0, le=2**31)]

Number = float
Positive = Annotated[float, Field(gt=0)]
FromZero = Annotated[float, Field(ge=0)]
Weight = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Iterations = Annotated[list[Index], Field(strict=False)]
Pair = Annotated[list[Number], Field(strict=False, min_length=2, max_length=2)]
Colour = Annotated[list[Number], Field(strict=False, min_length=3, max_length=3)]

Text = Annotated[str, AfterValidator(_text), Field(min_length=1)]
Name = Annotated[Text, AfterValidator(_name), Field(json_schema_extra=expected("a name without .. and /"))]
Template = Annotated[Text, AfterValidator(_template), Field(json_schema_extra=expected("a template such as '{}x4'"))]
# A block that other packages read, with any keys.
Open = Annotated[Any, AfterValidator(_open), WithJsonSchema({"type": "object"})]
TEXTS = {"type": "array", "items": {"type": "string"}}
Roots = Annotated[Any, AfterValidator(_roots), WithJsonSchema({"anyOf": [{"type": "string"}, TEXTS]})]
GPUS = {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]}
Gpus = Annotated[Any, AfterValidator(_gpus), WithJsonSchema(GPUS)]

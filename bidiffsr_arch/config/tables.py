"""Option tables for the documentation and JSON Schema for editors, generated from the structs."""

import re
from collections.abc import Iterator
from typing import Any

from bidiffsr_arch.config.data import DATA_SETS, DegradedDataset, IOBackend, PairedDataset, RealPairs, SingleDataset
from bidiffsr_arch.config.diffusion import BetaSchedule
from bidiffsr_arch.config.file import OUR_MODELS, DiffusionFile
from bidiffsr_arch.config.struct import Struct
from bidiffsr_arch.config.training import (
    Distill,
    DistParams,
    Expected,
    Logger,
    LossChange,
    Metric,
    Optimizer,
    Paths,
    Scheduler,
    TeacherBlock,
    TimestepWeights,
    Train,
    Val,
    Wandb,
)
from bidiffsr_arch.config.words import BLOCK, resolve, words
from bidiffsr_arch.errors import choose

BLOCKS: dict[str, type[Struct]] = {
    "top level": DiffusionFile,
    "beta_schedule": BetaSchedule,
    "datasets: …": PairedDataset,
    "datasets: … without GT": SingleDataset,
    "datasets: … of RealESRGANDataset": DegradedDataset,
    "datasets: … of RealESRGANPairedDataset": RealPairs,
    "datasets: …: io_backend": IOBackend,
    "train": Train,
    "train: optim_g": Optimizer,
    "train: scheduler": Scheduler,
    "train: timestep_weighting": TimestepWeights,
    "train: loss_schedule": LossChange,
    "train: distill": Distill,
    "train: teacher": TeacherBlock,
    "val": Val,
    "val: metrics: …": Metric,
    "logger": Logger,
    "logger: wandb": Wandb,
    "path": Paths,
    "dist_params": DistParams,
    "expected: …: …": Expected,
}
HEAD = "| key | values | default | |\n|---|---|---|---|"
# In Markdown: the table of a block, or of some of its keys, between two comments.
MARKED = re.compile(r"(<!-- options of ([^(>]+?)(?: \(([^)]+)\))? -->\n).*?(<!-- end of options -->)", re.DOTALL)


def table(block: str, keys: list[str] | None = None) -> str:
    """The options of a block in Markdown.

    Args:
        block: one of `BLOCKS`.
        keys: the keys to list, each with the block's name before it; if None, all keys, without it.
    Raises:
        InputError: there is no such block or key.
    """
    rows = {key: row for key, *row in _rows(choose("the table", block, BLOCKS))}
    if keys is None:
        return "\n".join([HEAD, *(f"| `{key}` | {' | '.join(row)} |" for key, row in rows.items())])
    before = "" if block == "top level" else f"{block}: "
    lines = [f"| `{before}{key}` | {' | '.join(choose(f'a key of {block}', key, rows))} |" for key in keys]
    return "\n".join([HEAD, *lines])


def _rows(struct: type[Struct]) -> Iterator[tuple[str, str, str, str]]:
    """Key, values, default and description of each option."""
    schema = struct.model_json_schema()
    definitions, required = schema.get("$defs", {}), schema.get("required", ())
    for key, entry in schema["properties"].items():
        options = entry.get("anyOf", [entry])
        named = resolve(next((option for option in options if "$ref" in option), entry), definitions)
        text = entry.get("description") or named.get("description", "").splitlines()[0]
        values = words(entry, definitions)
        default = "needed" if key in required else _shown(entry.get("default"), values)
        yield key, BLOCK if values.startswith(BLOCK) else values, default, text.replace("|", "\\|")


def _shown(default: Any, values: str) -> str:
    if values.startswith(BLOCK) or default == {}:
        return ""
    if default is None:
        return "`~`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def with_tables(markdown: str) -> str:
    """Replace the tables between the comments of a Markdown text.

    Raises:
        InputError: a comment names an unknown block or key.
    """

    def updated(match: re.Match) -> str:
        begin, block, keys, end = match.groups()
        return f"{begin}{table(block, keys.split(', ') if keys else None)}\n{end}"

    return MARKED.sub(updated, markdown)


def editor_schema() -> dict[str, Any]:
    """JSON Schema of an option file, for completion and checking in editors.

    No key is required, since the `base:` file may have it.
    """
    schema = _without_required(DiffusionFile.model_json_schema())
    schema["properties"]["datasets"]["additionalProperties"] = _any_dataset()
    schema["properties"]["base"] = {"type": "string", "description": "option file whose options this one changes"}
    known = {"anyOf": [{"enum": sorted(schema["properties"])}, {"pattern": "^network_"}]}
    is_ours = {"properties": {"model_type": {"enum": list(OUR_MODELS)}}, "required": ["model_type"]}
    # Other models may read further keys at the top level.
    further = {"additionalProperties": True, "if": is_ours, "then": {"propertyNames": known}}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "option file"}
    return {**head, **schema, **further}


def _any_dataset() -> dict[str, Any]:
    """Schema of a data set, chosen by its type; a block without one belongs to that of a base file."""
    schema: dict[str, Any] = {"$ref": "#/$defs/Dataset"}
    for name, struct in DATA_SETS.items():
        condition = {"properties": {"type": {"const": name}}, "required": ["type"]}
        schema = {"if": condition, "then": {"$ref": f"#/$defs/{struct.__name__}"}, "else": schema}
    return schema


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "required" or isinstance(value, dict)}
    return {key: _without_required(value) for key, value in kept.items()}

"""The options as tables for the documentation and as JSON Schema for editors, both from the structs."""

import re
from collections.abc import Iterator
from typing import Any

from bidiffsr_arch.config.data import DegradedDataset, IOBackend, PairedDataset, RealPairs, SingleDataset
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
# In Markdown: a table of a whole block, or of some of its keys, between comments that stay.
MARKED = re.compile(r"(<!-- options of ([^(>]+?)(?: \(([^)]+)\))? -->\n).*?(<!-- end of options -->)", re.DOTALL)


def table(block: str, keys: list[str] | None = None) -> str:
    """The options of a block in Markdown.

    Args:
        block: one of `BLOCKS`.
        keys: those to list, with the block's name before each; all of them, without it, if None.
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
    """A Markdown text in which the tables between its comments are replaced.

    Raises:
        InputError: a comment names an unknown block or key.
    """

    def renewed(match: re.Match) -> str:
        begin, block, keys, end = match.groups()
        return f"{begin}{table(block, keys.split(', ') if keys else None)}\n{end}"

    return MARKED.sub(renewed, markdown)


def editor_schema() -> dict[str, Any]:
    """JSON Schema of an option file, for completion and checking in editors.

    Nothing in it is required, since a file may leave to its `base:` what it does not change.
    """
    schema = _without_required(DiffusionFile.model_json_schema())
    schema["properties"]["base"] = {"type": "string", "description": "option file that this one changes"}
    known = {"anyOf": [{"enum": sorted(schema["properties"])}, {"pattern": "^network_"}]}
    is_ours = {"properties": {"model_type": {"enum": list(OUR_MODELS)}}, "required": ["model_type"]}
    # Other models may read further keys at the top level.
    further = {"additionalProperties": True, "if": is_ours, "then": {"propertyNames": known}}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "option file"}
    return {**head, **schema, **further}


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "required" or isinstance(value, dict)}
    return {key: _without_required(value) for key, value in kept.items()}

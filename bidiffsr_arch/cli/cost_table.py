"""What `basicsr cost` prints: a row for each option file, as text, JSON, or the page docs/cost.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.yaml import read_yaml
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.cost import Cost, count_cost
from bidiffsr_arch.metrics.published import PUBLISHED, PUBLISHED_SIZE, Published
from bidiffsr_arch.networks import build_network

MAIN_TABLE = "table2/"  # its rows go by the method alone
SPLIT = ("params_fp", "params_binary", "ops_fp", "ops_binary")
COLUMNS = ("name", "Params M", "published", "OPs G", "published", "equal", *SPLIT)
MODULE_COLUMNS = ("module", "type", "Params M", "OPs G", *SPLIT)
NOTHING = "-"

PAGE = """\
# What each row of the paper's tables costs

Written by `basicsr cost --markdown`; do not edit it. Counted at {size}.

Params = full precision + binary / 32. OPs = full precision + binary / 64, for one sampling step. A multiply-accumulate
counts 1, GroupNorm 5 an element, BatchNorm (its statistics are fixed) 1 an element, nearest up-sampling 1 an output
element; activations, PReLU, bias, additions and other element-wise operations count nothing. XNOR's map K counts what
it averages: at each pixel C for the channel mean and k² for the box. "Published" is what the paper prints (Chen et al.,
NeurIPS 2024, Tables 1 and 2), "equal" whether both figures agree with it to the printed digits.

{table}

{notes}"""
NOTES = {
    "table2/BNN": "The paper does not disclose the UNet of its six binary competitors, only that Params and OPs are "
    '"set to be similar". Here they are counted in the UNet of Table 1\'s Baseline, each with its own parts.',
    "table1_fusion/Add": "The Params of Add are the one figure of Table 1 that these rules miss, by 0.006 M.",
}


@dataclass(frozen=True)
class Row:
    """An option file and what its network costs; there is no cost where there is no network.

    Attributes:
        paper_row: table and method of the paper, as ``table1_pairs/2``, where the option file itself says so.
        published: what the paper prints for that row, at the size for which it does.
    """

    opt: str
    name: str
    paper_row: str | None
    cost: Cost | None
    published: Published | None

    @property
    def params_m(self) -> float:
        return self.cost.params / 1e6 if self.cost else 0.0

    @property
    def ops_g(self) -> float | None:
        return self.cost.ops / 1e9 if self.cost else None

    def split(self) -> dict[str, int | None]:
        """The whole numbers of which Params and OPs are made."""
        if self.cost:
            return {field: getattr(self.cost, field) for field in SPLIT}
        return {"params_fp": 0, "params_binary": 0, "ops_fp": None, "ops_binary": None}


def count_file(file: str, input_size: list[int]) -> Row:
    """Count the network of one option file.

    Raises:
        InputError: as `run`; the file is named.
    """
    options = load_options(file)
    own_row = read_yaml(file).get("paper_row")  # not its base's, which another network would pass for
    paper_row = None if own_row is None else str(own_row)
    name = paper_row.removeprefix(MAIN_TABLE) if paper_row else options["name"]
    try:
        network = build_network(options["network_g"], without_memory=True) if options.get("network_g") else None
        cost = count_cost(network, input_size) if network is not None else None
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    published = PUBLISHED.get(paper_row) if tuple(input_size) == PUBLISHED_SIZE else None
    return Row(file, name, paper_row, cost, published)


def cells(row: Row) -> list[str]:
    """One line under `COLUMNS`."""
    printed = row.published or (None, None)
    got = (row.params_m, row.ops_g)
    equal = "yes" if all(round(ours, 2) == theirs for ours, theirs in zip(got, printed, strict=True)) else "no"
    (params, ops), (params_printed, ops_printed) = map(number, got, (4, 4)), map(number, printed, (2, 2))
    return [
        row.name, params, params_printed, ops, ops_printed, equal if row.published else NOTHING,
        *(number(value, 0) for value in row.split().values()),
    ]  # fmt: skip


def remarks(row: Row) -> list[str]:
    """What has to be said about a row beside its numbers."""
    if row.cost is None:
        return [f"{row.name}: has no network, so no parameters; the enlargement itself is counted for no row"]
    lines = []
    if len(row.cost.inputs) < 3:  # it does not take (x_t, condition, time)
        given = " and ".join("x".join(map(str, shape)) for shape in row.cost.inputs)
        lines.append(f"{row.name}: counted for an input of {given}")
    if row.cost.uncounted:
        met = ", ".join(f"{operation} ({times} times)" for operation, times in row.cost.uncounted.items())
        lines.append(f"{row.name}: not counted, for want of a rule: {met}")
    return lines


def module_cells(cost: Cost | None) -> list[list[str]]:
    """Lines under `MODULE_COLUMNS` for the modules that cost something."""
    return [
        [module.name or "(all)", module.kind, number(module.params / 1e6, 4), number(module.ops / 1e9, 4)]
        + [number(getattr(module, field), 0) for field in SPLIT]
        for module in (cost.modules if cost else ())
        if module.params or module.ops
    ]


def number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def text_table(lines: list[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def as_text(rows: list[Row], by_module: bool) -> str:
    """Aligned tables: the rows, what has to be said about them, and every module of each if asked."""
    blocks = [text_table([COLUMNS, *map(cells, rows)]), *(remark for row in rows for remark in remarks(row))]
    if by_module:
        blocks += [f"\n{row.name}\n{text_table([MODULE_COLUMNS, *module_cells(row.cost)])}" for row in rows]
    return "\n".join(blocks)


def as_json(row: Row, by_module: bool) -> dict[str, Any]:
    """One entry of the JSON list; `published` is null where nothing is."""
    entry = {"opt": row.opt, "name": row.name, "params_m": row.params_m, "ops_g": row.ops_g, **row.split()}
    entry["published"] = row.published._asdict() if row.published else None
    if by_module:
        modules = row.cost.modules if row.cost else ()
        entry["modules"] = [
            {"name": module.name, "type": module.kind, **{field: getattr(module, field) for field in SPLIT}}
            for module in modules
        ]
    return entry


def as_page(rows: list[Row], input_size: list[int]) -> str:
    """The page docs/cost.md, in the order of the paper's tables; rows that are not in them come last."""
    order = {paper_row: place for place, paper_row in enumerate(PUBLISHED)}
    rows = sorted(rows, key=lambda row: order.get(row.paper_row, len(order)))
    rule = [":--", *["--:"] * (len(COLUMNS) - 1)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in [COLUMNS, rule, *map(cells, rows)])
    present = {row.paper_row for row in rows}
    notes = [note for paper_row, note in NOTES.items() if paper_row in present]
    notes += [remark for row in rows for remark in remarks(row)]
    return PAGE.format(size="{}x{}".format(*input_size), table=table, notes="".join(f"- {note}\n" for note in notes))

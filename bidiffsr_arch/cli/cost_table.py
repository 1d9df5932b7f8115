"""The output of `basicsr cost`: one row per option file, as text, JSON, or the page docs/cost.md."""

from dataclasses import dataclass
from typing import Any

from bidiffsr_arch.cli.table import text_table
from bidiffsr_arch.config.file import AnyFile, load_options
from bidiffsr_arch.config.yaml import read_yaml
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics.cost import Cost, count_cost
from bidiffsr_arch.metrics.published import PUBLISHED, PUBLISHED_SIZE, Published
from bidiffsr_arch.networks import build_network
from bidiffsr_arch.plugins import import_plugins

MAIN_TABLE = "table2/"  # its rows are named by the method alone
SPLIT = ("params_fp", "params_binary", "ops_fp", "ops_binary")
COLUMNS = ("name", "Params M", "published", "OPs G", "published", "equal", *SPLIT)
MODULE_COLUMNS = ("module", "type", "Params M", "OPs G", *SPLIT)
NOTHING = "-"

PAGE = """\
# Parameters and operations of the paper's tables

Written by `basicsr cost --markdown`; do not edit it. Counted at {size}.

Params = full precision + binary / 32. OPs = full precision + binary / 64, for one sampling step. A multiply-accumulate
counts 1, GroupNorm 5 per element, BatchNorm (with fixed statistics) 1 per element, nearest up-sampling 1 per output
element; activations, PReLU, bias, additions and other element-wise operations are free. XNOR's map K counts 1 per
averaged element: per pixel C for the channel mean and k² for the box. "Published" are the figures of the paper (Chen et
al., NeurIPS 2024, Tables 1 and 2), "equal" says whether both figures agree with the paper to the printed digits.

{table}

{notes}"""
NOTES = {
    "table2/BNN": "The paper does not disclose the UNet of its six binary competitors, only that Params and OPs are "
    '"set to be similar". Here they are counted in the UNet of Table 1\'s Baseline, each with its own layers.',
    "table1_fusion/Add": "Params of Add is the only figure of Table 1 that these rules do not reproduce; it differs by "
    "0.006 M.",
}


@dataclass(frozen=True)
class Row:
    """An option file and the cost of its network, None if it has no network.

    Attributes:
        paper_row: table and method of the paper, such as ``table1_pairs/2``, if the option file names one.
        published: the paper's figures for that row, if counted at the paper's input size.
    """

    opt: str
    name: str
    paper_row: str | None
    cost: Cost | None
    published: Published | None

    @property
    def params_m(self) -> float:
        """Params in M, 0 without a network."""
        return self.cost.params / 1e6 if self.cost else 0.0

    @property
    def ops_g(self) -> float | None:
        """OPs in G, None without a network."""
        return self.cost.ops / 1e9 if self.cost else None

    def split(self) -> dict[str, int | None]:
        """Full-precision and binary parameters and operations."""
        if self.cost:
            return {field: getattr(self.cost, field) for field in SPLIT}
        return {"params_fp": 0, "params_binary": 0, "ops_fp": None, "ops_binary": None}


def count_file(file: str, input_size: list[int]) -> Row:
    """Count the network of one option file.

    Raises:
        InputError: as `run`; the file is named.
    """
    options = load_options(file)
    top = AnyFile.read(options, file)
    import_plugins((), options)
    own_row = read_yaml(file).get("paper_row")  # the base file's row is another network's
    paper_row = None if own_row is None else str(own_row)
    name = paper_row.removeprefix(MAIN_TABLE) if paper_row else top.name
    try:
        network = build_network(top.network_g.arguments(), on_meta=True) if top.network_g else None
        cost = count_cost(network, input_size) if network is not None else None
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    published = PUBLISHED.get(paper_row or "") if tuple(input_size) == PUBLISHED_SIZE else None
    return Row(file, name, paper_row, cost, published)


def cells(row: Row) -> list[str]:
    """One row of the table with the columns `COLUMNS`."""
    printed = row.published or (None, None)
    got = (row.params_m, row.ops_g)
    pairs = zip(got, printed, strict=True)
    equal = "yes" if all(ours is not None and round(ours, 2) == theirs for ours, theirs in pairs) else "no"
    (params, ops), (params_printed, ops_printed) = map(number, got, (4, 4)), map(number, printed, (2, 2))
    return [
        row.name, params, params_printed, ops, ops_printed, equal if row.published else NOTHING,
        *(number(value, 0) for value in row.split().values()),
    ]  # fmt: skip


def remarks(row: Row) -> list[str]:
    """Notes without which a row's numbers would mislead."""
    if row.cost is None:
        return [f"{row.name}: has no network and therefore no parameters; upsampling is not counted in any row"]
    lines = []
    if len(row.cost.inputs) < 3:  # it does not take (x_t, condition, time)
        given = " and ".join("x".join(map(str, shape)) for shape in row.cost.inputs)
        lines.append(f"{row.name}: counted for an input of {given}")
    if row.cost.uncounted:
        met = ", ".join(f"{operation} ({times} times)" for operation, times in row.cost.uncounted.items())
        lines.append(f"{row.name}: not counted, because there is no rule: {met}")
    return lines


def module_cells(cost: Cost | None) -> list[list[str]]:
    """Rows of the table with the columns `MODULE_COLUMNS`, for the modules with parameters or operations."""
    return [
        [module.name or "(all)", module.kind, number(module.params / 1e6, 4), number(module.ops / 1e9, 4)]
        + [number(getattr(module, field), 0) for field in SPLIT]
        for module in (cost.modules if cost else ())
        if module.params or module.ops
    ]


def number(value: float | None, digits: int) -> str:
    """A number with thousands separators, `NOTHING` for None."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def as_text(rows: list[Row], by_module: bool) -> str:
    """Aligned tables: the rows, notes on them, and every module of each row if `by_module`."""
    right = range(1, len(COLUMNS))
    blocks = [text_table([COLUMNS, *map(cells, rows)], right), *(remark for row in rows for remark in remarks(row))]
    if by_module:
        blocks += [f"\n{row.name}\n{text_table([MODULE_COLUMNS, *module_cells(row.cost)], right)}" for row in rows]
    return "\n".join(blocks)


def as_json(row: Row, by_module: bool) -> dict[str, Any]:
    """One entry of the JSON list; `published` is null if the paper has no such row."""
    entry: dict[str, Any] = {"opt": row.opt, "name": row.name, "params_m": row.params_m, "ops_g": row.ops_g}
    entry |= row.split()
    entry["published"] = row.published._asdict() if row.published else None
    if by_module:
        modules = row.cost.modules if row.cost else ()
        entry["modules"] = [
            {"name": module.name, "type": module.kind, **{field: getattr(module, field) for field in SPLIT}}
            for module in modules
        ]
    return entry


def as_page(rows: list[Row], input_size: list[int]) -> str:
    """The page docs/cost.md, in the order of the paper's tables; other rows come last."""
    order = {paper_row: index for index, paper_row in enumerate(PUBLISHED)}
    rows = sorted(rows, key=lambda row: order.get(row.paper_row or "", len(order)))
    rule = [":--", *["--:"] * (len(COLUMNS) - 1)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in [COLUMNS, rule, *map(cells, rows)])
    present = {row.paper_row for row in rows}
    notes = [note for paper_row, note in NOTES.items() if paper_row in present]
    notes += [remark for row in rows for remark in remarks(row)]
    return PAGE.format(size="{}x{}".format(*input_size), table=table, notes="".join(f"- {note}\n" for note in notes))

"""`basicsr test --check`: compare the metrics of a test with the numbers that its option file expects."""

import argparse
import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from bidiffsr_arch.cli.table import text_table
from bidiffsr_arch.config.file import AnyFile
from bidiffsr_arch.config.training import Expected
from bidiffsr_arch.errors import CheckFailed, InputError
from bidiffsr_arch.files import write_bytes

OK, DIFFERS, NOT_CHECKED = "ok", "differs", "not checked"


@dataclass(frozen=True)
class Row:
    """An expected number and the result of the comparison."""

    dataset: str
    metric: str
    expected: float
    tolerance: float
    got: float | None
    verdict: str
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """The measured number minus the expected one."""
        return None if self.got is None else self.got - self.expected


def run_check(args: argparse.Namespace, file: AnyFile, options: OrderedDict) -> None:
    """Test on the data sets that exist, print the table, write the report.

    Args:
        args: those of `basicsr test`.
        file: the checked options; options: the same as plain data, for BasicSR.
    Raises:
        InputError: the `expected:` block or the report's name is wrong (nothing was tested then).
        CheckFailed: a number differs by more than its tolerance, or could not be checked with --strict.
    """
    if not file.expected:
        raise InputError(f"{args.opt}: expected an `expected:` block for --check, found none")
    write_report = report_writer(args.report)
    absent = absent_datasets(file)
    options["datasets"] = OrderedDict(
        (phase, dataset) for phase, dataset in options["datasets"].items() if dataset["name"] not in absent
    )
    results = {}
    if options["datasets"]:
        from basicsr.test import test_pipeline

        from bidiffsr_arch.compat.options import handed_over

        with handed_over(args, options), observed_results() as results:
            test_pipeline(os.getcwd())
    rows = compare(file.expected, results, absent)
    print(table(rows))
    failed = [row for row in rows if row.verdict == DIFFERS or (args.strict and row.verdict == NOT_CHECKED)]
    if write_report:
        write_report(rows, failed)
    if failed:
        names = ", ".join(f"{row.dataset} {row.metric} {row.verdict}" for row in failed)
        raise CheckFailed(f"{len(failed)} of {len(rows)} expected numbers failed: {names}")


def absent_datasets(file: AnyFile) -> dict[str, str]:
    """Data sets with a missing folder: {name: folder}."""
    return {
        dataset.name: root
        for dataset in file.datasets.values()
        for key, roots in dataset
        if key.startswith("dataroot_")
        for root in (roots if isinstance(roots, list) else [roots])
        if root is not None and not Path(os.path.expanduser(root)).exists()
    }


@contextmanager
def observed_results() -> Iterator[dict[str, dict[str, float]]]:
    """The metrics of every validation that BasicSR runs within the context: {data set: {metric: value}}."""
    from basicsr.models.base_model import BaseModel

    results: dict[str, dict[str, float]] = {}
    validation = BaseModel.validation

    def observed(model: BaseModel, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        validation(model, dataloader, *args, **kwargs)
        results[dataloader.dataset.opt["name"]] = dict(getattr(model, "metric_results", {}))

    BaseModel.validation = observed
    try:
        yield results
    finally:
        BaseModel.validation = validation


def compare(
    expected: Mapping[str, Mapping[str, Expected]],
    results: Mapping[str, Mapping[str, float]],
    absent: Mapping[str, str],
) -> list[Row]:
    """One row for each expected number, in the option file's order.

    Args:
        expected: numbers by data set and metric; results: what was measured, likewise.
        absent: data sets that do not exist, see `absent_datasets`.
    """
    rows = []
    for dataset, numbers in expected.items():
        for metric, number in numbers.items():
            value, tolerance = number.value, number.tolerance
            got = results.get(dataset, {}).get(metric)
            if isinstance(got, Real):
                verdict = OK if abs(float(got) - value) <= tolerance + _rounding(got, value) else DIFFERS
                reason = "" if math.isfinite(got) else f"got {got}"
                rows.append(Row(dataset, metric, value, tolerance, float(got), verdict, reason))
                continue
            reason = f"{absent[dataset]} does not exist" if dataset in absent else "no value; BasicSR's log says why"
            rows.append(Row(dataset, metric, value, tolerance, None, NOT_CHECKED, reason))
    return rows


def _rounding(got: Real, value: float) -> float:
    """Allowance for rounding at the edge of the tolerance: a few units in the last place."""
    kind = type(got) if isinstance(got, np.floating) else float
    return 4 * float(np.finfo(kind).eps) * max(abs(float(got)), abs(value)) if math.isfinite(got) else 0.0


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    lines = [("data set", "metric", "expected", "tolerance", "got", "difference", "verdict")]
    for row in rows:
        got, difference = ("-", "-") if row.got is None else (f"{row.got:.4f}", f"{row.difference:+.4f}")
        verdict = f"{row.verdict} ({row.reason})" if row.reason else row.verdict
        lines.append((row.dataset, row.metric, f"{row.expected:.4f}", f"{row.tolerance:g}", got, difference, verdict))
    return text_table(lines)


def report_writer(report: str | None) -> Callable[[list[Row], list[Row]], None] | None:
    """The function `write(rows, failed)` for a report of that name, None for no report.

    Raises:
        InputError: the name ends in neither .json nor .xml.
    """
    if report is None:
        return None
    path = Path(os.path.expanduser(report))
    formats = {".json": json_report, ".xml": junit_report}
    if path.suffix not in formats:
        raise InputError(f"expected --report to end in {' or '.join(formats)}, got {report}")
    return lambda rows, failed: write_bytes(path, formats[path.suffix](rows, failed))


def json_report(rows: list[Row], failed: list[Row]) -> bytes:
    """`{"passed": bool, "rows": [...]}`, a row with its fields, difference included; null if not finite."""
    entries = [{**asdict(row), "difference": row.difference, "failed": row in failed} for row in rows]
    for entry in entries:
        entry |= {key: None for key in ("got", "difference") if not math.isfinite(entry[key] or 0)}
    return (json.dumps({"passed": not failed, "rows": entries}, indent=2, allow_nan=False) + "\n").encode()


def junit_report(rows: list[Row], failed: list[Row]) -> bytes:
    """JUnit XML for CI systems: one test case per number, skipped if the number was not checked."""
    skipped = [row for row in rows if row.verdict == NOT_CHECKED and row not in failed]
    suite = ElementTree.Element(
        "testsuite", name="basicsr test --check", tests=str(len(rows)), failures=str(len(failed)), errors="0",
        skipped=str(len(skipped)),
    )  # fmt: skip
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname=row.dataset, name=row.metric)
        message = row.reason or f"expected {row.expected} +- {row.tolerance}, got {row.got}"
        if row in failed:
            ElementTree.SubElement(case, "failure", message=message)
        elif row in skipped:
            ElementTree.SubElement(case, "skipped", message=message)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"

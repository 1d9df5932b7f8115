"""Training curves from BasicSR's logs or TensorBoard's files."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bidiffsr_arch.errors import InputError

Series = Mapping[str, list[tuple[int, float]]]

TRAINING_LINE = re.compile(r"iter:\s*([\d,]+), lr:\(([\d.e+-]+)")
LOSS = re.compile(r"\b(l_\w+): ([\d.e+-]+)")
METRIC = re.compile(r"# (\w+): (-?[\d.]+)\s")
VALIDATION = re.compile(r"Validation (\S+)")
EVENTS = "events.out.tfevents.*"
LEARNING_RATE = "learning rate"


def read_series(source: Path) -> Series:
    """Read curves: name -> list of (iteration, value).

    Args:
        source: a log file, an experiment folder with logs, or a folder with TensorBoard's files.
    Raises:
        InputError: there is nothing to read, or no curve in it.
    """
    if source.is_dir():
        logs, events = sorted(source.glob("train_*.log")), sorted(source.glob(EVENTS))
        series = _merged([_from_log(log) for log in logs] if logs else [_from_tensorboard(source)] if events else [])
    elif source.is_file():
        series = _from_log(source)
    else:
        raise InputError(f"expected a log file or a folder at {source}, found neither")
    if not series:
        raise InputError(f"expected a training log or TensorBoard's files in {source}, found no curve")
    return series


def _merged(parts: list[Series]) -> Series:
    """Merge the logs of a resumed training run; of two values for one iteration, the later log's is kept."""
    merged: dict[str, dict[int, float]] = defaultdict(dict)
    for part in parts:
        for name, points in part.items():
            merged[name].update(points)
    return {name: sorted(points.items()) for name, points in merged.items()}


def _from_log(path: Path) -> Series:
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    iteration, dataset = 0, ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := TRAINING_LINE.search(line):
            iteration = int(found[1].replace(",", ""))
            series[LEARNING_RATE].append((iteration, float(found[2])))
            for name, value in LOSS.findall(line):
                series[name].append((iteration, float(value)))
        elif found := VALIDATION.search(line):
            dataset = found[1]
        elif found := METRIC.search(line):
            series[f"{found[1]} on {dataset}"].append((iteration, float(found[2])))
    return dict(series)


def _from_tensorboard(folder: Path) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    series = {}
    for tag in events.Tags()["scalars"]:
        kind, _, rest = tag.partition("/")
        name = {"losses": rest, "metrics": " on ".join(reversed(rest.split("/")))}.get(kind, tag)
        series[name] = [(event.step, event.value) for event in events.Scalars(tag)]
    return series


def curves(series: Series, title: str) -> Figure:
    """Draw one panel for the losses and one per metric, over iterations.

    Raises:
        InputError: the series hold neither losses nor metrics.
    """
    losses = {name: points for name, points in series.items() if name.startswith("l_")}
    metrics = {name: points for name, points in series.items() if " on " in name}
    panels = ([losses] if losses else []) + [{name: points} for name, points in metrics.items()]
    if not panels:
        raise InputError("expected losses or metrics to draw, found only a learning rate")
    figure = Figure((8, 2.8 * len(panels) + 0.4), layout="constrained")
    figure.suptitle(f"Training of {title}")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0], panels, strict=True):
        for name, points in panel.items():
            axes.plot(*zip(*points, strict=True), ".-", label=name)
        is_loss = panel is losses
        axes.set(xlabel="iteration", ylabel="loss (no unit)" if is_loss else unit(next(iter(panel))))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def unit(metric: str) -> str:
    """Axis label of a metric, chosen by the first word of its name."""
    name = metric.split()[0]
    units = {"psnr": "PSNR (dB)", "params": "Params (M)", "ops": "OPs (G)"}
    return units.get(name, f"{name} (no unit)")

"""The option file: its top level, and relations between its blocks."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from bidiffsr_arch.config.data import (
    DATA_SETS,
    TRAINING_NEEDS,
    AnyDataset,
    Dataset,
    DegradedDataset,
    Pairs,
    TrainingDataset,
)
from bidiffsr_arch.config.degradation import LOADED, Degradation, unfit_pool
from bidiffsr_arch.config.diffusion import DiffusionOptions, Scaled
from bidiffsr_arch.config.kinds import Gpus, Name, Open, Seed, Text
from bidiffsr_arch.config.shipped import place_benchmarks, place_weights
from bidiffsr_arch.config.struct import Struct, one_line
from bidiffsr_arch.config.training import (
    DistParams,
    Expected,
    Logger,
    Metric,
    ObjectiveOptions,
    Paths,
    RetentionOptions,
    RunLength,
    Train,
    Val,
    unknown_best,
)
from bidiffsr_arch.config.yaml import merged_options, override
from bidiffsr_arch.errors import InputError, nearest

OUR_MODELS = ("BIDiffSRModel", "BicubicModel")
CHECKED_MODELS = (*OUR_MODELS, "SRModel")
MODELS_WITHOUT_NETWORK = ("BicubicModel",)
OF_DIFFUSION = [name for name in ObjectiveOptions.model_fields if name not in ("pixel_opt", "perceptual_opt")]
"""Keys of ``train`` that BasicSR's own models do not read."""
MISSPELT = 0.8  # difflib ratio from which an unknown top-level key counts as a misspelt known one


class Network(Struct, extra="allow"):
    """A network. Further keys are arguments of its constructor."""

    type: Text = Field(description="class of the network, such as `BIDiffSRUNet` or `SR3UNet`")

    def arguments(self) -> dict[str, Any]:
        """Type and constructor arguments, as `networks.build_network` takes them."""
        return self.model_dump()


class AnyFile(Scaled, extra="allow"):
    """Keys of every option file, whatever its model is. Blocks are open, and further keys are allowed."""

    name: Text = Field(description="name of the experiment and its folder")
    model_type: Text = Field(description="`BIDiffSRModel`, `BicubicModel`, or a model of BasicSR or another package")
    num_gpu: Gpus = Field(description="number of GPUs; `auto`: all; 0: the CPU")
    plugins: list[Text] | None = Field(None, description="packages to import, which register networks or models")
    datasets: dict[str, Dataset]
    network_g: Network | None = None
    beta_schedule: Open | None = None
    path: Open
    train: Open | None = None
    val: Open | None = None
    logger: Open | None = None
    dist_params: Open | None = None
    expected: dict[str, dict[str, Expected]] | None = Field(
        None, description="numbers with which `basicsr test --check` compares, by data set and metric"
    )

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if self.network_g is None and self.model_type not in MODELS_WITHOUT_NETWORK:
            yield "expected the key network_g, found none; see `basicsr options`"
        if not self.train and not self.val:
            yield "expected a `train:` or a `val:` block, found neither"
        if self.scale is None and any(_needs_scale(data) for data in self.datasets.values()):
            yield "expected the key scale (HR size / LR size), found none"

    def length(self) -> RunLength:
        """The number of iterations, which BasicSR's trainer reads for every model.

        Raises:
            InputError: ``total_iter`` is missing or not an integer.
        """
        return self.train if isinstance(self.train, RunLength) else RunLength.part_of(self.train or {}, place="train")

    def logging(self) -> Logger:
        """The block ``logger``, which BasicSR's trainer reads for every model.

        Raises:
            InputError: a key is missing, or its value is wrong.
        """
        return self.logger if isinstance(self.logger, Logger) else Logger.part_of(self.logger or {}, place="logger")

    def training_relations(self) -> Iterator[str]:
        """Violated requirements of a file for training, one sentence each."""
        missing = [f"`{name}:`" for name in ("train", "logger") if not getattr(self, name)]
        missing += ["`datasets: train:`"] * ("train" not in self.datasets)
        if missing:
            yield f"expected {', '.join(missing)} for training, found none; `basicsr test` needs none"

    def test_relations(self) -> Iterator[str]:
        """Violated requirements of a file for tests, one sentence each."""
        yield from ()


class OptionFile(Degradation, AnyFile):
    """An option file whose model reads the keys of BasicSR's SRModel; further keys are allowed."""

    name: Name = Field(description="name of the experiment and its folder")
    manual_seed: Seed | None = Field(None, description="seed of all random numbers; `~`: chosen at random, and saved")
    find_unused_parameters: bool = Field(False, description="argument of DistributedDataParallel")
    paper_row: Any = Field(None, description="table and method of the paper with which `basicsr cost` compares")
    datasets: dict[str, AnyDataset] = Field(description="`train`, `val`, `val_2`, …; in tests `test_1`, `test_2`, …")
    path: Paths
    train: Train | None = None
    val: Val | None = None
    logger: Logger | None = None
    dist_params: DistParams | None = None

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        train = self.training_data()
        if train and train.gt_size and self.scale and train.gt_size % self.scale:
            yield f"expected datasets: train: gt_size to be a multiple of scale {self.scale}, got {train.gt_size}"
        yield from self._degraded()
        binarize = ((self.network_g and self.network_g.model_extra) or {}).get("binarize")
        if self.val and self.val.packed and binarize == "activations":
            yield "expected val: packed: false with network_g: binarize: activations, whose weights are real, got true"
        metrics = (self.val and self.val.metrics) or {}
        yield from unknown_best(self.logger or RetentionOptions(), metrics)
        logger = self.logger
        if logger and logger.wandb and logger.wandb.project and not logger.use_tb_logger and "debug" not in self.name:
            yield "expected logger: use_tb_logger to be true with wandb: project, got false: wandb sends its log"
        yield from self._expected(metrics)

    def _expected(self, metrics: Mapping[str, Metric]) -> Iterator[str]:
        names = [data.name for data in self.datasets.values()]
        for name, numbers in (self.expected or {}).items():
            if name not in names:
                yield f"`expected: {name}:` is not a data set of the file; its data sets are {_listed(names)}"
            for metric in numbers.keys() - metrics.keys():
                yield f"`expected: {name}: {metric}:` is not a metric of the file; its metrics are {_listed(metrics)}"

    def _degraded(self) -> Iterator[str]:
        """Violated relations between ``degradation`` and the data sets, one sentence each."""
        for phase, data in self.datasets.items():
            makes_lq = phase == "train" and self.degradation is not None
            if isinstance(data, DegradedDataset) and not makes_lq:
                yield (
                    f"expected datasets: {phase}: of pairs, got {data.type}, whose LQ images `degradation: realesrgan` "
                    "makes in training"
                )
            if isinstance(data, Pairs) and makes_lq:
                yield f"expected datasets: train: type: RealESRGANDataset with degradation: realesrgan, got {data.type}"
        train = self.datasets.get("train")
        if self.degradation is None or not isinstance(train, DegradedDataset):
            return
        if train.batch_size_per_gpu:
            yield from unfit_pool(self.queue_size, train.batch_size_per_gpu)
        if self.scale and LOADED % self.scale:
            yield f"expected scale to divide {LOADED}, the side of the images that are degraded, got {self.scale}"

    def training_data(self) -> TrainingDataset | None:
        """The data set ``train``; None if there is none, or if it is another package's."""
        train = self.datasets.get("train")
        return train if isinstance(train, TrainingDataset) else None

    def training_relations(self) -> Iterator[str]:
        """Violated requirements of a file for training, one sentence each."""
        yield from super().training_relations()
        yield from self._phases("train", "val")
        if self.val and self.val.val_freq is None and any(phase.startswith("val") for phase in self.datasets):
            yield "expected the key val_freq in val:, found none"
        data = self.training_data()
        if missing := [key for key in TRAINING_NEEDS if data is not None and getattr(data, key) is None]:
            yield f"expected the key(s) {', '.join(missing)} in datasets: train:, found none"
        given = () if isinstance(self, BIDiffSRModelOptions) else OF_DIFFUSION
        if unread := [name for name in given if getattr(self.train, name, None)]:
            yield f"expected none of {', '.join(unread)} in train:, which {self.model_type} does not read"

    def test_relations(self) -> Iterator[str]:
        """Violated requirements of a file for tests, one sentence each."""
        yield from super().test_relations()
        yield from self._phases("val", "test")

    def _phases(self, *kinds: str) -> Iterator[str]:
        for phase in self.datasets:
            if phase.split("_")[0] not in kinds:
                yield f"expected the data sets to be {' or '.join(kinds)} (or val_2, …), got {phase!r}"


class BIDiffSRModelOptions(DiffusionOptions):
    """What `BIDiffSRModel` itself reads at the top level, beside the blocks ``network_g`` and ``train``."""

    timestep_sampling: Literal["sample", "batch"] | None = Field(
        "sample", description="one random timestep per sample, or one per batch (as in the reference)"
    )
    noise_level_sampling: Literal["discrete", "uniform"] = Field(
        "discrete",
        description="training with `time_input: noise_level`: levels of timesteps, or any between two of them (SR3)",
    )

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if self.noise_level_sampling == "uniform" and self.time_input != "noise_level":
            yield f"expected time_input: noise_level with noise_level_sampling: uniform, got {self.time_input}"


class DiffusionFile(BIDiffSRModelOptions, OptionFile, extra="forbid"):
    """An option file for `BIDiffSRModel`, or `BicubicModel`, which reads less."""

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        yield from wrong_for_diffusion(self, self.network_g.arguments() if self.network_g else {}, self.train)


def wrong_for_diffusion(
    options: BIDiffSRModelOptions, network_g: Mapping[str, Any], train: ObjectiveOptions | None
) -> Iterator[str]:
    """Violated relations between a diffusion model's options, network and objective, one sentence each.

    Args:
        train: None in a test.
    """
    steps, timesteps = network_g.get("total_step"), options.beta_schedule.n_timestep
    if steps is not None and steps != timesteps:
        yield (f"expected network_g: total_step and beta_schedule: n_timestep to be equal, got {steps} and {timesteps}")
    if options.time_input == "noise_level" and (groups := network_g.get("dynamic_group", 1)) > 1:
        yield (
            f"expected network_g: dynamic_group: 1 with time_input: noise_level, got {groups}: groups are ranges of "
            "timesteps, and noise levels are all in the first one"
        )
    if train and train.perceptual_opt and options.beta_schedule.prediction_type == "epsilon":
        yield (
            "expected beta_schedule: prediction_type sample or v_prediction with train: perceptual_opt, got epsilon: "
            "the image that a predicted noise implies is itself noise at most timesteps"
        )
    if train and not train.pixel_opt:
        yield "expected a loss in train: pixel_opt, got none; the paper uses {type: L1Loss}"


def _needs_scale(data: Dataset) -> bool:
    """Whether a data set is one of BasicSR's that have GT images."""
    return issubclass(DATA_SETS.get(data.type, Dataset), TrainingDataset)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def load_options(path: str | os.PathLike, overrides: list[str] | None = None) -> OrderedDict:
    """Read the options of a run: the base files, the file over them, the overrides, and folders of the environment.

    Only keys that every model needs are checked: the top level, and the names and types of data sets and network.

    Args:
        path: an option file.
        overrides: entries such as `train:ema_decay=0.999` (BasicSR's --force_yml); values are YAML.

    The environment variable BIDIFFSR_BENCHMARK_ROOT replaces a leading `datasets/benchmark` in `dataroot_*`, and the
    folder of the package a leading `bidiffsr_arch/weights` in `pretrain_network_g`.

    Raises:
        InputError: one line that names the file and what was expected in it.
    """
    options = merged_options(path)
    for entry in overrides or []:
        override(options, entry)
    _check_top(options, str(path))
    place_benchmarks(options)
    place_weights(options)
    return options


def _check_top(options: OrderedDict, path: str) -> None:
    """Check the keys that every run needs, for which BasicSR would raise KeyError."""
    _, wrong = AnyFile.examine(options)
    sentences = [sentence for _, sentence in wrong]
    known = DiffusionFile.names()
    for key in (key for key in options if key not in known and not key.startswith("network_")):
        if hint := nearest(key, known, MISSPELT):
            sentences.insert(0, f"unknown key {key!r}{hint}")
    if sentences:
        raise InputError(one_line(sentences, path))


def check_file(options: Mapping[str, Any], path: str, is_train: bool) -> AnyFile:
    """The checked option file; an `AnyFile` for a model of another package, which may read anything.

    Args:
        options: what `load_options` gives.
        path: the file's name, for messages.
        is_train: whether it is for `basicsr train`; a test ignores `train:`.
    Raises:
        InputError: one line for everything that is wrong.
    """
    model = options["model_type"]
    kind = AnyFile if model not in CHECKED_MODELS else DiffusionFile if model in OUR_MODELS else OptionFile
    if not is_train and not options.get("val"):
        raise InputError(f"{path}: expected a `val:` block for a test, found none")
    unread = [key for key in options if key.startswith("network_") and key != "network_g"]
    unread += [] if is_train else ["train"]
    file = kind.read({key: value for key, value in options.items() if key not in unread}, path)
    if wrong := list(file.training_relations() if is_train else file.test_relations()):
        raise InputError(one_line(wrong, path))
    return file

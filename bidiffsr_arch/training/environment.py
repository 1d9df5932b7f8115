"""Checks of the machine, folders and images that an option file needs, before anything is written."""

import inspect
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bidiffsr_arch.compat.validation import needs_gt
from bidiffsr_arch.config.data import ImageDataset, Pairs, RealPairs, SingleDataset, TrainingDataset
from bidiffsr_arch.config.file import OptionFile
from bidiffsr_arch.data.lmdb_list import META, is_database, sizes_in
from bidiffsr_arch.metrics.lpips import WeightsMissing, find_weights

# Sides in pixels that a metric needs after crop_border: one pixel, SSIM's window, two of NIQE's blocks.
LEAST_SIDES = {"calculate_psnr": (1, 1), "calculate_ssim": (11, 11), "calculate_niqe": (96, 192)}

Size = tuple[int, int]  # width, height


def unmet_requirements(file: OptionFile, options: Mapping[str, Any], is_train: bool) -> Iterator[str]:
    """One sentence for each requirement that is not met.

    Args:
        file: the checked options; options: the same as plain data.
        is_train: whether they are for training.
    """
    if is_train:
        yield from _wrong_loggers(file)
        yield from _wrong_perceptual_loss(file)
    wrong = [sentence for phase, data in _present(file).items() for sentence in _wrong_files(phase, data)]
    yield from wrong or _wrong_images(file, options)


def _wrong_loggers(file: OptionFile) -> Iterator[str]:
    logger = file.logger
    if logger is None:
        return
    wanted = {"wandb: project": logger.wandb and logger.wandb.project, "use_tb_logger": logger.use_tb_logger}
    packages = {"wandb: project": "wandb", "use_tb_logger": "tensorboard"}
    for key, value in wanted.items():
        if value and find_spec(packages[key]) is None:
            yield (
                f"expected the package {packages[key]} for logger: {key}: {value}, found none; pip install "
                f"{packages[key]}, or leave it out"
            )


def _wrong_perceptual_loss(file: OptionFile) -> Iterator[str]:
    block = (file.train and file.train.perceptual_opt) or {}
    yield from LOSS_WEIGHTS.get(block.get("type", ""), lambda block: iter(()))(block)


def _wrong_lpips(block: Mapping[str, Any]) -> Iterator[str]:
    try:
        find_weights(block.get("net", "alex"), block.get("weights"))
    except WeightsMissing as missing:
        yield f"train: perceptual_opt: {missing}"


def _wrong_vgg(block: Mapping[str, Any]) -> Iterator[str]:
    """Download the weights of BasicSR's VGG, which BasicSR would do when the loss is built."""
    import torchvision
    from basicsr.archs.vgg_arch import VGG_PRETRAIN_PATH
    from basicsr.losses.basic_loss import PerceptualLoss

    default = inspect.signature(PerceptualLoss).parameters["vgg_type"].default
    name = block.get("vgg_type", default)
    if Path(VGG_PRETRAIN_PATH).exists():
        return
    try:
        torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=True)
    except (OSError, ValueError, KeyError) as error:
        yield (
            f"expected weights of {name} for train: perceptual_opt, could not fetch them ({error}); put torchvision's "
            f"file into {VGG_PRETRAIN_PATH}"
        )


# Type of a perceptual loss -> what its weights lack here.
LOSS_WEIGHTS = {"PerceptualLoss": _wrong_vgg, "LPIPSLoss": _wrong_lpips}


def _present(file: OptionFile) -> dict[str, ImageDataset]:
    """Data sets whose folders all exist; others are reported later, or skipped by ``test --check``."""
    return {phase: data for phase, data in file.datasets.items() if isinstance(data, ImageDataset)
            and all(Path(os.path.expanduser(root)).exists() for root in data.roots())}  # fmt: skip


def _wrong_files(phase: str, data: ImageDataset) -> Iterator[str]:
    import torch

    block = f"datasets: {phase}"
    if data.io_backend.type == "lmdb":
        for root in data.roots():
            if not is_database(root):
                yield (
                    f"expected {block}: {root} to be a database NAME.lmdb with its {META}, as io_backend: lmdb reads, "
                    "got another folder; write one by `basicsr data lmdb`, or set io_backend: {type: disk}"
                )
    if isinstance(data, SingleDataset) and data.io_backend.type == "disk" and not data.meta_info_file:
        folder = os.path.expanduser(data.dataroot_lq)
        if not any(entry.is_file() and not entry.name.startswith(".") for entry in os.scandir(folder)):
            yield f"expected images in {block}: dataroot_lq: {data.dataroot_lq}, found none"
    if data.list_of_images:
        yield from _wrong_list(f"{block}: {data.list_key}: {data.list_of_images}", Path(data.list_of_images), data)
    if not isinstance(data, TrainingDataset) or data.prefetch_mode != "cuda" or data.pin_memory:
        return
    if torch.cuda.is_available():
        yield f"expected {block}: pin_memory to be true with prefetch_mode: cuda, got false"


def _wrong_list(place: str, file: Path, data: ImageDataset) -> Iterator[str]:
    """Mistakes in a data set's text file with the names of its images."""
    if not file.is_file():
        yield f"{place} does not exist"
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        yield f"expected text in UTF-8 in {place}, got other bytes ({error})"
        return
    blank = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if not lines:
        yield f"expected names of images in {place}, which is empty"
    elif blank:
        yield f"expected a name in line {blank} of {place}, which is blank"
    elif isinstance(data, RealPairs) and (other := next((line for line in lines if line.count(", ") != 1), "")):
        yield f"expected lines of {place} to be `GT's name, LQ's name`, got {other!r}"


def _wrong_images(file: OptionFile, options: Mapping[str, Any]) -> Iterator[str]:
    """Images that are too small for a metric, or of the wrong size for bicubic upsampling."""
    metrics = {name: metric for name, metric in ((file.val and file.val.metrics) or {}).items()
               if metric.type in LEAST_SIDES}  # fmt: skip
    is_bicubic = file.model_type == "BicubicModel"
    for phase, data in _present(file).items():
        has_gt = isinstance(data, Pairs)
        possible = {name: metric for name, metric in metrics.items()
                    if has_gt or (file.scale and not needs_gt(metric.model_dump()))}  # fmt: skip
        if phase.split("_")[0] == "train" or not (possible or is_bicubic):
            continue
        pairs = list(_sizes({**options["datasets"][phase], "phase": "val", "scale": file.scale or 1}, has_gt))
        for name, metric in possible.items():
            small = next((gt for gt, _, sides in pairs if not _is_enough(sides, metric.type, metric.crop_border)), None)
            if small:
                least = "x".join(str(side + 2 * metric.crop_border) for side in LEAST_SIDES[metric.type])
                yield (
                    f"expected images of at least {least} pixels for val: metrics: {name} ({metric.type}, crop_border "
                    f"{metric.crop_border}), got a smaller one, {small}"
                )
        same = next((gt for gt, lq_size, gt_size in pairs if lq_size == gt_size and (file.scale or 1) > 1), None)
        if is_bicubic and same:
            yield f"expected LQ images {file.scale} times smaller than GT to upsample, got one of GT's size for {same}"


def _is_enough(size: Size, metric: str, border: int) -> bool:
    sides = sorted(side - 2 * border for side in size)
    return all(side >= least for side, least in zip(sides, LEAST_SIDES[metric], strict=True))


def _sizes(data: Mapping[str, Any], has_gt: bool) -> Iterator[tuple[str, Size, Size]]:
    """GT's path and the sizes of LQ and GT for each pair of a data set, from the files' headers.

    Without GT, LQ's path, and the sizes of LQ and of the result.

    Raises:
        InputError: the data set's folders do not fit together.
    """
    from basicsr.utils.registry import DATASET_REGISTRY

    dataset = DATASET_REGISTRY.get(data["type"])(deepcopy(dict(data)))
    sides = ("lq", "gt") if has_gt else ("lq",)
    listed = {side: sizes_in(data[f"dataroot_{side}"]) for side in sides} if _is_lmdb(data) else None
    for entry in dataset.paths:
        paths = [entry[f"{side}_path"] for side in sides] if has_gt else [entry]
        sizes = [listed[side].get(path) if listed else _size(path) for side, path in zip(sides, paths, strict=True)]
        found = [size for size in sizes if size]
        if len(found) == len(sides):  # images that cannot be opened are reported when they are read
            width, height = found[0]
            yield paths[-1], found[0], found[1] if has_gt else (width * data["scale"], height * data["scale"])


def _is_lmdb(data: Mapping[str, Any]) -> bool:
    return data["io_backend"]["type"] == "lmdb"


def _size(path: str) -> Size | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None

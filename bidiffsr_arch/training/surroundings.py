"""Checks of what an option file needs of this machine, its folders and images, before anything is written."""

import inspect
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bidiffsr_arch.config.data import LoadedDataset, Pairs, RealPairs
from bidiffsr_arch.config.file import OptionFile

# Sides in pixels that a metric needs after crop_border: one pixel, SSIM's window, two of NIQE's blocks.
LEAST_SIDES = {"calculate_psnr": (1, 1), "calculate_ssim": (11, 11), "calculate_niqe": (96, 192)}
META = "meta_info.txt"

Size = tuple[int, int]  # width, height


def wrong_here(file: OptionFile, options: Mapping[str, Any], is_train: bool) -> Iterator[str]:
    """One sentence for each requirement that is not met.

    Args:
        file: the checked options; options: the same as plain data.
        is_train: whether they are to be trained by.
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
    """BasicSR fetches the weights of its VGG when the loss is built; here they are fetched before."""
    if not (file.train and file.train.perceptual_opt):
        return
    import torchvision
    from basicsr.archs.vgg_arch import VGG_PRETRAIN_PATH
    from basicsr.losses.basic_loss import PerceptualLoss

    default = inspect.signature(PerceptualLoss).parameters["vgg_type"].default
    name = file.train.perceptual_opt.get("vgg_type", default)
    if Path(VGG_PRETRAIN_PATH).exists():
        return
    try:
        torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=True)
    except (OSError, ValueError, KeyError) as error:
        yield (
            f"expected weights of {name} for train: perceptual_opt, could not fetch them ({error}); put torchvision's "
            f"file into {VGG_PRETRAIN_PATH}"
        )


def _present(file: OptionFile) -> dict[str, LoadedDataset]:
    """Data sets of which all folders exist; others are named later, or left out by ``test --check``."""
    return {phase: data for phase, data in file.loaded().items()
            if all(Path(root).expanduser().exists() for root in data.roots)}  # fmt: skip


def _wrong_files(phase: str, data: LoadedDataset) -> Iterator[str]:
    import torch

    block = f"datasets: {phase}"
    if data.io_backend.type == "lmdb":
        for root in data.roots:
            if not root.endswith(".lmdb") or not Path(root).expanduser().joinpath(META).is_file():
                yield (
                    f"expected {block}: {root} to be a database NAME.lmdb with its {META}, as io_backend: lmdb reads, "
                    "got another folder; write one by `basicsr data lmdb`, or set io_backend: {type: disk}"
                )
    listed = data.list_of_images
    if listed and not Path(listed).is_file():
        yield f"{block}: {data.list_key}: {listed} does not exist"
    elif listed:
        lines = Path(listed).read_text(encoding="utf-8").splitlines()
        blank = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
        if not lines:
            yield f"expected names of images in {block}: {data.list_key}: {listed}, which is empty"
        elif blank:
            yield f"expected a name in line {blank} of {block}: {data.list_key}: {listed}, which is blank"
        elif isinstance(data, RealPairs) and (other := next((line for line in lines if line.count(", ") != 1), "")):
            yield f"expected lines of {block}: {data.list_key}: {listed} to be `GT's name, LQ's name`, got {other!r}"
    if data.prefetch_mode == "cuda" and torch.cuda.is_available() and not data.pin_memory:
        yield f"expected {block}: pin_memory to be true with prefetch_mode: cuda, got false"


def _wrong_images(file: OptionFile, options: Mapping[str, Any]) -> Iterator[str]:
    """Images that are too small for a metric, or of the wrong size for bicubic upsampling."""
    metrics = {name: metric for name, metric in ((file.val and file.val.metrics) or {}).items()
               if metric.type in LEAST_SIDES}  # fmt: skip
    is_bicubic = file.model_type == "BicubicModel"
    for phase, data in _present(file).items():
        if phase.split("_")[0] == "train" or not (metrics or is_bicubic) or not isinstance(data, Pairs):
            continue
        pairs = list(_sizes({**options["datasets"][phase], "phase": "val", "scale": file.scale}))
        for name, metric in metrics.items():
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


def _sizes(data: Mapping[str, Any]) -> Iterator[tuple[str, Size, Size]]:
    """GT's path and the sizes of LQ and GT for each pair of a data set, from the files' headers.

    Raises:
        InputError: the data set's folders do not fit together.
    """
    from basicsr.utils.registry import DATASET_REGISTRY

    dataset = DATASET_REGISTRY.get(data["type"])(deepcopy(dict(data)))
    listed = {side: _listed_sizes(data[f"dataroot_{side}"]) for side in ("lq", "gt")} if _is_lmdb(data) else None
    for paths in dataset.paths:
        sizes = [listed[side].get(paths[f"{side}_path"]) if listed else _size(paths[f"{side}_path"])
                 for side in ("lq", "gt")]  # fmt: skip
        if all(sizes):  # images that do not open are named when they are read
            yield paths["gt_path"], *sizes


def _is_lmdb(data: Mapping[str, Any]) -> bool:
    return data["io_backend"]["type"] == "lmdb"


def _listed_sizes(database: str) -> dict[str, Size]:
    """Sizes of the images in an LMDB by key, from its meta_info.txt: ``0001.png (480,320,3) 1``."""
    lines = Path(database).expanduser().joinpath(META).read_text(encoding="utf-8").splitlines()
    shapes = {line.split(".")[0]: line.partition("(")[2].partition(")")[0].split(",") for line in lines if "(" in line}
    return {key: (int(shape[1]), int(shape[0])) for key, shape in shapes.items()}


def _size(path: str) -> Size | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


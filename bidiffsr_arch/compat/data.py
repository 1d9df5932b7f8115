"""Patches for data sets, data loaders and image files."""

import itertools
import random
from os import path as osp
from typing import Any

import basicsr.data
import cv2
import numpy as np
import torch
from basicsr.data import data_util, transforms
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchGenerator
from basicsr.utils import FileClient, img_util, scandir
from torch.utils.data import DataLoader

from bidiffsr_arch.compat.patch import contains, replace, replace_method
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import decode

IMREAD_FLAGS = {
    "color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE, "unchanged": cv2.IMREAD_UNCHANGED,
}  # fmt: skip
NAMES_SHOWN = 3


class NamedContent(bytes):
    """The bytes of a file, with the path they were read from."""

    source = "an image"


def worker_seeds() -> bool:
    """Workers were seeded equally in every epoch, so augmentations repeated: each epoch has its own seed."""
    stock = basicsr.data.worker_init_fn
    if not contains(stock, "worker_seed = num_workers * rank + worker_id + seed"):
        return False
    replace(stock, seed_worker)
    return True


def seed_worker(worker_id: int, num_workers: int, rank: int, seed: int) -> None:
    """Seed numpy and random with torch's seed of this worker, which differs by epoch, worker and rank.

    torch draws it from the main process's generator, which BasicSR seeds with manual_seed + rank.
    """
    worker_seed = torch.initial_seed() % 2**32
    np.random.seed(worker_seed)
    random.seed(worker_seed)


def prefetch_errors() -> bool:
    """An error in the prefetching thread made training hang: the error is raised in the main thread."""
    stock = PrefetchGenerator.run
    if contains(stock, "except"):
        return False

    def run(self: PrefetchGenerator) -> None:
        try:
            stock(self)
        except Exception as error:
            self.queue.put(error)

    def __next__(self: PrefetchGenerator) -> Any:
        item = self.queue.get()
        if item is not None and not isinstance(item, Exception):
            return item
        self.queue.put(item)  # the thread has ended; the next call must not wait for an empty queue
        raise item or StopIteration

    replace_method(PrefetchGenerator, "run", run)
    replace_method(PrefetchGenerator, "__next__", __next__)
    return True


def lazy_prefetcher() -> bool:
    """CPUPrefetcher started workers and a thread that reset() dropped at once: they start at the first batch."""
    stock = CPUPrefetcher.__init__
    if not contains(stock, "iter(loader)"):
        return False

    def __init__(self: CPUPrefetcher, loader: DataLoader) -> None:
        self.ori_loader = loader
        self.loader = itertools.chain.from_iterable([loader])  # calls iter(loader) at its first next()

    replace_method(CPUPrefetcher, "__init__", __init__)
    return True


def named_content() -> bool:
    """Errors in decoding could not name the file: the bytes that FileClient reads carry their path."""
    stock = FileClient.get
    if contains(stock, "source"):
        return False

    def get(self: FileClient, filepath: str, client_key: str = "default") -> NamedContent:
        content = stock(self, filepath, client_key)
        if content is None:
            raise InputError(f"{filepath} is not in the {client_key} {self.backend} database")
        named = NamedContent(content)
        named.source = str(filepath)
        return named

    replace_method(FileClient, "get", get)
    return True


def broken_images() -> bool:
    """A broken image gave "'NoneType' object has no attribute 'astype'": the error names the file."""
    stock = img_util.imfrombytes
    if contains(stock, "is None"):
        return False

    def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> np.ndarray:
        image = decode(content, getattr(content, "source", NamedContent.source), IMREAD_FLAGS[flag])
        return image.astype(np.float32) / 255.0 if float32 else image

    replace(stock, imfrombytes)
    return True


def unpaired_folders() -> bool:
    """Unequal LQ and GT folders raised an assertion without names, and pairs had the disk's order: the error names
    images, and pairs are sorted."""
    stock = data_util.paired_paths_from_folder
    if contains(stock, "sorted"):
        return False

    def paired_paths_from_folder(folders: list[str], keys: list[str], filename_tmpl: str) -> list[dict[str, str]]:
        lq_folder, gt_folder = folders
        for folder, key in zip(folders, keys, strict=True):
            if not osp.isdir(folder):
                raise InputError(f"expected a folder of images at {folder}, found none; set dataroot_{key}")
        found = set(scandir(lq_folder))
        stems = [osp.splitext(name) for name in scandir(gt_folder)]
        wanted = {f"{filename_tmpl.format(stem)}{suffix}" for stem, suffix in stems}
        if not wanted:
            raise InputError(f"expected images in {gt_folder}, found none")
        for names, here, there in ((wanted - found, lq_folder, gt_folder), (found - wanted, gt_folder, lq_folder)):
            if names:
                shown = ", ".join(sorted(names)[:NAMES_SHOWN])
                more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                raise InputError(
                    f"expected a partner for each of {len(wanted)} GT and {len(found)} LQ images; "
                    f"none in {here} for {shown}{more} of {there} (filename_tmpl: {filename_tmpl})"
                )
        return sorted(stock(folders, keys, filename_tmpl), key=lambda pair: pair[f"{keys[1]}_path"])

    replace(stock, paired_paths_from_folder)
    return True


def mismatched_crops() -> bool:
    """In training, an image pair of wrong sizes gave an error without a file name: the error names the file."""
    stock = transforms.paired_random_crop
    if not contains(stock, "Scale mismatches"):
        return False

    def paired_random_crop(
        img_gts: Any, img_lqs: Any, gt_patch_size: int, scale: int, gt_path: str | None = None
    ) -> tuple[Any, Any]:
        try:
            return stock(img_gts, img_lqs, gt_patch_size, scale, gt_path)
        except ValueError as error:
            reason = " ".join(" ".join(map(str, error.args)).split())
            raise InputError(f"{gt_path}: {reason} Check scale and gt_size, or replace the pair") from error

    replace(stock, paired_random_crop)
    return True


def silent_crops() -> bool:
    """Validation silently cropped GT of a wrong size: only an excess below `scale` pixels is cropped."""
    stock = PairedImageDataset.__getitem__
    if not contains(stock, "img_gt[0:img_lq.shape[0] * scale, 0:img_lq.shape[1] * scale, :]"):
        return False

    def __getitem__(self: PairedImageDataset, index: int) -> dict:
        sample = stock(self, index)
        if self.opt["phase"] != "train":
            # Read it again, since `sample` has it cropped; decoding is cheap compared with restoring an image.
            gt = img_util.imfrombytes(self.file_client.get(sample["gt_path"], "gt"))
            _check_sizes(sample, gt.shape[:2], self.opt["scale"])
        return sample

    replace_method(PairedImageDataset, "__getitem__", __getitem__)
    return True


def _check_sizes(sample: dict, gt_size: tuple[int, int], scale: int) -> None:
    lq_size = tuple(sample["lq"].shape[-2:])
    is_upsampled = lq_size == tuple(gt_size)
    fits = all(0 <= gt - lq * scale < scale for gt, lq in zip(gt_size, lq_size, strict=True))
    if not (fits or is_upsampled):
        (height, width), (lq_height, lq_width) = gt_size, lq_size
        raise InputError(
            f"expected GT {sample['gt_path']} to have {scale} times the size of LQ {sample['lq_path']}, "
            f"got {width}x{height} for {lq_width}x{lq_height}; replace one of them, or set scale"
        )

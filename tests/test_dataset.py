"""The reference's data set is BasicSR's paired one with a `task` option."""

import random

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import read_image, write_image
from bidiffsr_arch.training import MultiPairedImageDataset


@pytest.fixture
def options(tmp_path):
    """A function that returns a data set's options; its folders hold two pairs of noise images."""
    rng = np.random.default_rng(0)
    for name, size in (("a", (48, 40)), ("b", (40, 48))):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        write_image(tmp_path / "HR" / f"{name}.png", image)
        write_image(tmp_path / "X4" / f"{name}x4.png", imresize(image, 1 / 4))
    return lambda **further: {
        "name": "noise",
        "dataroot_gt": str(tmp_path / "HR"),
        "dataroot_lq": str(tmp_path / "X4"),
        "filename_tmpl": "{}x4",
        "io_backend": {"type": "disk"},
        "scale": 4,
        "phase": "val",
        **further,
    }


def assert_same_items(first, second, seed):
    assert len(first) == len(second) == 2
    for index in range(2):
        random.seed(seed)
        item = first[index]
        random.seed(seed)
        expected = second[index]
        assert item.keys() == expected.keys()
        assert all(
            torch.equal(item[key], value) if torch.is_tensor(value) else item[key] == value
            for key, value in expected.items()
        )


@pytest.mark.parametrize("phase", ["train", "val"])
def test_is_basicsr_s_data_set(options, phase):
    common = {"phase": phase, "gt_size": 16, "use_hflip": True, "use_rot": True}
    ours = build_dataset(options(type="MultiPairedImageDataset", task="SR", **common))
    assert isinstance(ours, MultiPairedImageDataset)
    for seed in range(4):  # of augmentations
        assert_same_items(ours, PairedImageDataset(options(**common)), seed)


def test_lq_is_returned_as_stored(options):
    item = MultiPairedImageDataset(options(task="SR"))[0]
    stored = read_image(item["lq_path"])[..., ::-1].transpose(2, 0, 1).copy()
    assert torch.equal(item["lq"], torch.from_numpy(stored).float() / 255)
    assert item["gt"].shape == (3, 48, 40)


def test_task_may_be_left_out(options):
    assert len(MultiPairedImageDataset(options())) == 2


@pytest.mark.parametrize("task", ["denoise", "CAR", None, ["SR"]])
def test_other_tasks_are_refused(options, task):
    with pytest.raises(InputError, match="expected `task: SR` in data set 'noise', got"):
        MultiPairedImageDataset(options(task=task))

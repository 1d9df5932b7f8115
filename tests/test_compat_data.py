"""Reading images with BasicSR: the defect in the stock function, then the patched one."""

import inspect
import queue
import random
import shutil
from functools import partial
from pathlib import Path

import basicsr.data
import cv2
import numpy as np
import pytest
import torch
from basicsr.data import data_util, transforms
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchDataLoader, PrefetchGenerator
from basicsr.utils import FileClient, imfrombytes, img_util
from torch.utils.data import DataLoader, Dataset

from bidiffsr_arch.errors import InputError


def an_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def pair(tmp_path: Path) -> dict:
    """Options of a data set at scale 2 with one pair, a.png: LQ 8x6, GT 16x12."""
    for name, size in (("gt", (16, 12)), ("lq", (8, 6))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), an_image(*size))
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")}
    crop = {"gt_size": 8, "use_hflip": False, "use_rot": False}
    return {"name": "pair", "type": "PairedImageDataset", **roots, "io_backend": {"type": "disk"}, "scale": 2, **crop}


class Draws(Dataset):
    """Random numbers of a loader worker from the two generators of BasicSR's augmentations."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[float, float]:
        return random.random(), np.random.rand()


def epochs(worker_init_fn, seed: int) -> list[list]:
    torch.manual_seed(seed)
    initialise = partial(worker_init_fn, num_workers=1, rank=0, seed=seed)
    loader = DataLoader(Draws(), num_workers=1, worker_init_fn=initialise)
    return [[float(value) for pair in loader for value in pair] for _ in range(2)]


def test_workers_draw_new_numbers_in_every_epoch():
    first, second = epochs(inspect.unwrap(basicsr.data.worker_init_fn), 0)
    assert first == second
    first, second = epochs(basicsr.data.worker_init_fn, 0)
    assert not set(first) & set(second)
    assert [first, second] == epochs(basicsr.data.worker_init_fn, 0), "the seed fixes them"
    assert [first, second] != epochs(basicsr.data.worker_init_fn, 1)


def failing(count: int):
    yield from range(count)
    raise InputError("the fourth image is broken")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stock_prefetching_hangs_after_an_error():
    class Stock(PrefetchGenerator):
        run = inspect.unwrap(PrefetchGenerator.run)

    generator = Stock(failing(0), 1)
    generator.join(5)
    with pytest.raises(queue.Empty):
        generator.queue.get(timeout=0.1)


def test_prefetching_raises_an_error_in_the_main_thread():
    generator = PrefetchGenerator(failing(3), 1)
    assert [next(generator) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(InputError, match="the fourth image"):
            next(generator)


def test_an_exhausted_prefetcher_stays_exhausted():
    prefetcher = CPUPrefetcher(PrefetchDataLoader(num_prefetch_queue=1, dataset=[1, 2]))
    assert [prefetcher.next() is None for _ in range(4)] == [False, False, True, True]
    prefetcher.reset()
    assert prefetcher.next().item() == 1


def test_a_prefetcher_starts_workers_on_first_use():
    class Counted(list):
        started = 0

        def __iter__(self):
            Counted.started += 1
            return super().__iter__()

    stock = CPUPrefetcher.__new__(CPUPrefetcher)
    inspect.unwrap(CPUPrefetcher.__init__)(stock, Counted([1, 2]))
    assert Counted.started == 1
    prefetcher = CPUPrefetcher(Counted([1, 2]))
    assert Counted.started == 1
    assert [prefetcher.next() for _ in range(4)] == [1, 2, None, None] and Counted.started == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_broken_image_is_named(tmp_path, suffix, kept):
    file = tmp_path / f"broken{suffix}"
    content = cv2.imencode(suffix, an_image(16, 12))[1].tobytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    content = FileClient("disk").get(str(file))
    with pytest.raises((AttributeError, cv2.error)):
        inspect.unwrap(imfrombytes)(content, float32=True)
    with pytest.raises(InputError, match=f"broken{suffix} cannot be decoded"):
        imfrombytes(content, float32=True)


@pytest.mark.parametrize(("suffix", "tail"), [(".png", 12), (".jpg", 2)])
def test_a_truncated_file_is_refused_even_if_the_decoder_accepts_it(suffix, tail, monkeypatch):
    content = cv2.imencode(suffix, an_image(16, 12))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: an_image(16, 12))  # as older OpenCVs: an image, half of it gray
    assert inspect.unwrap(imfrombytes)(content[:-tail]).shape == (16, 12, 3)
    assert imfrombytes(content).shape == (16, 12, 3)
    with pytest.raises(InputError, match="an image cannot be decoded"):
        imfrombytes(content[:-tail])


@pytest.mark.parametrize("float32", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whole_images_are_decoded_as_before(channels, float32):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    content = memoryview(cv2.imencode(".png", image)[1].tobytes())
    stock, patched = inspect.unwrap(imfrombytes)(content, float32=float32), imfrombytes(content, float32=float32)
    assert patched.dtype == stock.dtype and np.array_equal(patched, stock) and patched.shape == (5, 7, 3)
    assert img_util.imfrombytes is imfrombytes


def test_a_data_set_names_its_broken_image(pair):
    file = Path(pair["dataroot_lq"], "a.png")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"lq/a\.png cannot be decoded"):
        PairedImageDataset({**pair, "phase": "val"})[0]


def test_content_has_its_path_and_is_bytes(pair):
    file = Path(pair["dataroot_gt"], "a.png")
    content = FileClient("disk").get(file)
    assert content == file.read_bytes() and content.source == str(file)
    assert not hasattr(inspect.unwrap(FileClient.get)(FileClient("disk"), file), "source")


def test_a_missing_database_entry_is_named():
    client = FileClient("disk")
    client.backend, client.client = "lmdb", type("Empty", (), {"get": staticmethod(lambda path, key: None)})
    assert inspect.unwrap(FileClient.get)(client, "b", "gt") is None
    with pytest.raises(InputError, match="b is not in the gt lmdb database"):
        client.get("b", "gt")


def paths(pair: dict, template: str = "{}", find=None) -> list[dict[str, str]]:
    find = find or data_util.paired_paths_from_folder
    return find([pair["dataroot_lq"], pair["dataroot_gt"]], ["lq", "gt"], template)


@pytest.mark.parametrize("side", ["lq", "gt"])
def test_images_without_a_partner_are_named(pair, side):
    Path(pair[f"dataroot_{side}"], "a.png").rename(Path(pair[f"dataroot_{side}"], "b.png"))
    with pytest.raises(AssertionError):
        paths(pair, find=inspect.unwrap(data_util.paired_paths_from_folder))
    with pytest.raises(InputError, match=rf"none in {pair['dataroot_lq']} for {'ba'[side == 'lq']}\.png"):
        paths(pair)


def test_many_images_without_a_partner_are_counted(pair):
    for number in range(5):
        Path(pair["dataroot_lq"], f"{number}.png").touch()
    with pytest.raises(InputError, match=r"1 GT and 6 LQ .* for 0\.png, 1\.png, 2\.png and 2 more"):
        paths(pair)


def test_an_empty_folder_is_named(pair):
    for side in ("lq", "gt"):
        Path(pair[f"dataroot_{side}"], "a.png").unlink()
    assert paths(pair, find=inspect.unwrap(data_util.paired_paths_from_folder)) == []
    with pytest.raises(InputError, match=f"expected images in {pair['dataroot_gt']}, found none"):
        paths(pair)


@pytest.mark.parametrize("side", ["lq", "gt"])
def test_a_missing_folder_is_named_with_its_key(pair, side):
    shutil.rmtree(pair[f"dataroot_{side}"])
    with pytest.raises(InputError, match=f"a folder of images at {pair[f'dataroot_{side}']}.*dataroot_{side}"):
        paths(pair)


def test_pairs_are_sorted_and_named_by_the_template(pair):
    for name in ("c", "b"):
        Path(pair["dataroot_gt"], f"{name}.png").touch()
    for name in ("b", "a", "c"):
        Path(pair["dataroot_lq"], f"{name}x2.png").touch()
    Path(pair["dataroot_lq"], "a.png").unlink()
    found = [(Path(found["gt_path"]).name, Path(found["lq_path"]).name) for found in paths(pair, "{}x2")]
    assert found == [("a.png", "ax2.png"), ("b.png", "bx2.png"), ("c.png", "cx2.png")]


def test_a_mismatched_training_pair_is_named(pair):
    with pytest.raises(ValueError) as stock:
        inspect.unwrap(transforms.paired_random_crop)(an_image(16, 12), an_image(8, 7), 8, 2, "gt/a.png")
    assert "gt/a.png" not in str(stock.value)
    cv2.imwrite(pair["dataroot_lq"] + "/a.png", an_image(8, 7))
    with pytest.raises(InputError, match=r"gt/a\.png: Scale mismatches\. GT \(16, 12\) .* LQ \(8, 7\)"):
        PairedImageDataset({**pair, "phase": "train"})[0]


def test_a_pair_below_the_crop_is_named(pair):
    with pytest.raises(InputError, match=r"gt/a\.png: LQ \(8, 6\) is smaller than patch size"):
        PairedImageDataset({**pair, "phase": "train", "gt_size": 32})[0]


@pytest.mark.parametrize(
    ("gt", "cropped"),
    [((16, 12), (16, 12)), ((17, 13), (16, 12)), ((8, 6), (8, 6))],
    ids=["equal", "excess below scale", "LQ upsampled already"],
)
def test_legal_validation_sizes(pair, gt, cropped):
    cv2.imwrite(pair["dataroot_gt"] + "/a.png", an_image(*gt))
    assert PairedImageDataset({**pair, "phase": "val"})[0]["gt"].shape == (3, *cropped)


@pytest.mark.parametrize("gt", [(18, 12), (16, 14), (15, 12), (16, 11), (12, 16)])
def test_other_validation_sizes_are_named(pair, gt):
    cv2.imwrite(pair["dataroot_gt"] + "/a.png", an_image(*gt))
    data_set = PairedImageDataset({**pair, "phase": "val"})
    inspect.unwrap(PairedImageDataset.__getitem__)(data_set, 0)
    height, width = gt
    with pytest.raises(InputError, match=rf"gt/a\.png .*2 times .*lq/a\.png, got {width}x{height} for 6x8"):
        data_set[0]

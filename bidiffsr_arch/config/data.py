"""Data sets: BasicSR's data sets of images, with all keys, and those of other packages."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from bidiffsr_arch.config.degradation import LEAST_CROP, LOADED, Kernels
from bidiffsr_arch.config.kinds import Colour, Items, Name, Positive, Roots, Template, Text, Workers
from bidiffsr_arch.config.struct import Struct

TRAINING_NEEDS = ("gt_size", "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu")


class IOBackend(Struct):
    """How the files of a data set are stored."""

    type: Literal["disk", "lmdb", "memcached"] = Field(description="folders, databases `NAME.lmdb`, or a server")
    db_paths: Any = Field(None, description="of `lmdb`; set by the data set")
    client_keys: Any = Field(None, description="of `lmdb`; set by the data set")
    server_list_cfg: Text | None = Field(None, description="of `memcached`")
    client_cfg: Text | None = Field(None, description="of `memcached`")
    sys_path: Text | None = Field(None, description="of `memcached`: folder of its Python client")

    def _relations(self) -> Iterator[str]:
        if self.type == "memcached" and not (self.server_list_cfg and self.client_cfg):
            yield "expected server_list_cfg and client_cfg in io_backend: of type memcached, found none"


class Dataset(Struct, extra="allow"):
    """Any data set. Those of other packages read further keys."""

    name: Name = Field(description="its name in logs and in `expected:`")
    type: Text = Field(description="class of the data set, such as `PairedImageDataset`")


class ImageDataset(Dataset):
    """Keys of all BasicSR's data sets of images."""

    io_backend: IOBackend = Field(description="how the files are stored")
    scale: Items | None = Field(None, description="set from the top level")
    phase: Text | None = Field(None, description="set from the block's name")

    list_key: ClassVar[str] = "meta_info_file"

    @property
    def list_of_images(self) -> str | None:
        """The text file with the names of its images, if there is one."""
        return getattr(self, self.list_key)

    @abstractmethod
    def roots(self) -> list[str]:
        """All folders of its images."""


class NormalizedDataset(ImageDataset):
    """Keys of data sets whose images may be normalized."""

    mean: Colour | None = Field(None, description="subtracted from pixels; undone before metrics")
    std: Colour | None = Field(None, description="divides pixels; undone before metrics")

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if (self.mean is None) != (self.std is None):
            yield f"expected both mean and std in {self.name}, or neither"


class SingleDataset(NormalizedDataset):
    """LQ images alone, for validation and tests: BasicSR's `SingleImageDataset`."""

    dataroot_lq: Text = Field(description="folder of LQ (LR) images")
    meta_info_file: Text | None = Field(None, description="text file with an image's name on each line")
    color: Literal["y"] | None = Field(None, description="`y`: the luma channel alone")

    def roots(self) -> list[str]:
        """Its folder."""
        return [self.dataroot_lq]


class TrainingDataset(ImageDataset, extra="forbid"):
    """Keys of all BasicSR's data sets with which a network can be trained."""

    gt_size: Items | None = Field(None, description="training: side of a GT crop in pixels, a multiple of `scale`")
    use_hflip: bool | None = Field(None, description="training: flip at random")
    use_rot: bool | None = Field(None, description="training: rotate by multiples of 90 degrees at random")
    use_shuffle: bool = Field(True, description="the reference's key, without effect: training data is always shuffled")
    num_worker_per_gpu: Workers | None = Field(None, description="training: loader processes for each GPU")
    batch_size_per_gpu: Items | None = Field(None, description="training: samples for each GPU")
    dataset_enlarge_ratio: Positive = Field(1, description="training: number of times that an epoch repeats the data")
    prefetch_mode: Literal["cpu", "cuda"] | None = Field(None, description="training: prefetch batches")
    num_prefetch_queue: Items = Field(1, description="number of batches that `prefetch_mode: cpu` loads in advance")
    pin_memory: bool = Field(False, description="page-locked memory; required by `prefetch_mode: cuda`")
    persistent_workers: bool = Field(False, description="training: keep loader processes between epochs")


class Pairs(TrainingDataset, NormalizedDataset, extra="forbid"):
    """Keys of all data sets of LQ and GT images."""

    dataroot_gt: Roots = Field(description="folder of GT (HR) images, or a list of folders")
    dataroot_lq: Roots = Field(description="folder of LQ (LR) images, or a list of equally many folders")
    filename_tmpl: Template = Field("{}", description="name of an LQ image, made from that of its GT image")

    def roots(self) -> list[str]:
        """The folders of GT, then those of LQ."""
        both = (self.dataroot_gt, self.dataroot_lq)
        return [root for roots in both for root in ([roots] if isinstance(roots, str) else roots)]

    def _relations(self) -> Iterator[str]:
        gt, lq = self.dataroot_gt, self.dataroot_lq
        if isinstance(gt, list) or isinstance(lq, list):
            if not (isinstance(gt, list) and isinstance(lq, list) and len(gt) == len(lq)):
                yield f"expected as many folders in dataroot_gt as in dataroot_lq of {self.name}, got {gt!r} and {lq!r}"
            if self.io_backend.type != "disk" or self.list_of_images:
                yield f"expected io_backend: disk and no {self.list_key} with lists of folders in {self.name}"
        yield from super()._relations()


class PairedDataset(Pairs):
    """Pairs of LQ and GT images: BasicSR's `PairedImageDataset`, the reference's `MultiPairedImageDataset`."""

    task: Text = Field("SR", description="the reference's key, always `SR`")
    meta_info_file: Text | None = Field(None, description="text file with an image's name on each line")
    color: Literal["y"] | None = Field(None, description="`y`: the luma channel alone")


class RealPairs(Pairs):
    """BasicSR's `RealESRGANPairedDataset`, for fine-tuning on pairs."""

    list_key: ClassVar[str] = "meta_info"

    meta_info: Text | None = Field(None, description="text file with `GT's name, LQ's name` on each line")


class DegradedDataset(Kernels, TrainingDataset):
    """BasicSR's `RealESRGANDataset`: GT images and blur kernels, from which ``degradation: realesrgan`` makes LQ."""

    list_key: ClassVar[str] = "meta_info"

    dataroot_gt: Text = Field(description="folder of GT (HR) images")
    meta_info: Text | None = Field(None, description="text file with a GT image's name on each line; `~`: all images")

    def roots(self) -> list[str]:
        """Its folder."""
        return [self.dataroot_gt]

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if self.gt_size is not None and not LEAST_CROP <= self.gt_size <= LOADED:
            yield (
                f"expected gt_size of {self.name} between {LEAST_CROP} and {LOADED} (images are cropped to "
                f"{LOADED}x{LOADED} before they are degraded), got {self.gt_size}"
            )


DATA_SETS: dict[str, type[ImageDataset]] = {
    "MultiPairedImageDataset": PairedDataset,
    "PairedImageDataset": PairedDataset,
    "RealESRGANDataset": DegradedDataset,
    "RealESRGANPairedDataset": RealPairs,
    "SingleImageDataset": SingleDataset,
}


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return f"<{DATA_SETS[kind].__name__}>" if kind in DATA_SETS else "<Dataset>"


AnyDataset = Annotated[
    Annotated[PairedDataset, Tag("<PairedDataset>")]
    | Annotated[RealPairs, Tag("<RealPairs>")]
    | Annotated[DegradedDataset, Tag("<DegradedDataset>")]
    | Annotated[SingleDataset, Tag("<SingleDataset>")]
    | Annotated[Dataset, Tag("<Dataset>")],
    Discriminator(_kind),
]

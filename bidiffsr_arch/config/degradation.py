"""Real-ESRGAN's second-order degradation (Wang et al., ICCVW 2021): blur, resize, noise and JPEG, and all of it again.

Names of the options, and their defaults, are those of Real-ESRGAN's option files.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from bidiffsr_arch.config.kinds import FromZero, Items, Number, expected
from bidiffsr_arch.config.struct import Struct

LOADED = 400  # side in pixels of the crop that RealESRGANDataset loads, fixed in its code
LEAST_CROP = 26  # side in pixels from which USMSharp's kernel of 51 pixels can be padded by reflection
LEAST_RESIZED = 11  # side in pixels from which a blur kernel of 21 pixels can


def _ascending(value: list[float]) -> list[float]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError("no range")
    return value


def _above_zero(value: list[float]) -> list[float]:
    if value[0] == 0:
        raise ValueError("below 0")
    return value


Probability = Annotated[float, Field(ge=0, le=1)]
ProbabilityWeights = Annotated[list[FromZero], Field(strict=False, min_length=1)]
Weights3 = Annotated[list[FromZero], Field(strict=False, min_length=3, max_length=3)]
Range = Annotated[
    list[Number],
    AfterValidator(_ascending),
    Field(strict=False, min_length=2, max_length=2, json_schema_extra=expected("two numbers of at least 0, in order")),
]
RangeAbove0 = Annotated[
    Range, AfterValidator(_above_zero), Field(json_schema_extra=expected("two numbers above 0, in order"))
]
Kernel = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KernelList = Annotated[
    list[Kernel], Field(json_schema_extra=expected("a list of iso, aniso, generalized_iso, … (see the default)"))
]
KERNELS: list[Kernel] = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KERNEL_PROB = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]


class Kernels(Struct):
    """The blur kernels that are drawn for each image; part of a data set."""

    blur_kernel_size: Items = Field(21, description="Real-ESRGAN's key, without effect: 7 to 21, equally likely")
    kernel_list: KernelList = Field(KERNELS, description="kinds of blur of the first degradation")
    kernel_prob: ProbabilityWeights = Field(KERNEL_PROB, description="probability of each kind of `kernel_list`")
    sinc_prob: Probability = Field(0.1, description="probability of a sinc filter instead of a blur")
    blur_sigma: RangeAbove0 = Field([0.2, 3], description="standard deviation of a blur in pixels")
    betag_range: RangeAbove0 = Field([0.5, 4], description="exponent of generalized Gaussian blurs")
    betap_range: RangeAbove0 = Field([1, 2], description="exponent of plateau-shaped blurs")
    blur_kernel_size2: Items = Field(21, description="as `blur_kernel_size`")
    kernel_list2: KernelList = Field(KERNELS, description="kinds of blur of the second degradation")
    kernel_prob2: ProbabilityWeights = Field(KERNEL_PROB, description="probability of each kind of `kernel_list2`")
    sinc_prob2: Probability = Field(0.1, description="as `sinc_prob`, in the second degradation")
    blur_sigma2: RangeAbove0 = Field([0.2, 1.5], description="as `blur_sigma`")
    betag_range2: RangeAbove0 = Field([0.5, 4], description="as `betag_range`")
    betap_range2: RangeAbove0 = Field([1, 2], description="as `betap_range`")
    final_sinc_prob: Probability = Field(0.8, description="probability of a final sinc filter, which causes ringing")

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        for kinds, weights in (("kernel_list", "kernel_prob"), ("kernel_list2", "kernel_prob2")):
            count, given = len(getattr(self, kinds)), len(getattr(self, weights))
            if count != given:
                yield f"expected {weights} to have a number for each of {kinds}, {count}, got {given}"


class Degradation(Struct):
    """How LQ images are made from GT images in training; at an option file's top level."""

    degradation: Literal["realesrgan"] | None = Field(
        None, description="make LQ images in training as Real-ESRGAN does; `~`: data sets have them"
    )
    queue_size: Items = Field(
        180, description="training pairs in the pool from which batches are mixed, a multiple of the batch"
    )
    l1_gt_usm: bool = Field(
        True,
        validation_alias=AliasChoices("l1_gt_usm", "gt_usm"),  # of Real-ESRGAN's models with and without a GAN
        description="sharpen the GT images (unsharp mask), as Real-ESRGAN does",
    )
    resize_prob: Weights3 = Field([0.2, 0.7, 0.1], description="probabilities of resizing up, down and not at all")
    resize_range: RangeAbove0 = Field([0.15, 1.5], description="range of the resizing factor")
    gaussian_noise_prob: Probability = Field(0.5, description="probability of Gaussian instead of Poisson noise")
    noise_range: Range = Field([1, 30], description="standard deviation of Gaussian noise, of values in 0 .. 255")
    poisson_scale_range: Range = Field([0.05, 3], description="scale of Poisson noise")
    gray_noise_prob: Probability = Field(0.4, description="probability of noise that is the same in all channels")
    jpeg_range: RangeAbove0 = Field([30, 95], description="quality of JPEG compression")
    second_blur_prob: Probability = Field(0.8, description="probability of the second blur")
    resize_prob2: Weights3 = Field([0.3, 0.4, 0.3], description="as `resize_prob`, in the second degradation")
    resize_range2: RangeAbove0 = Field([0.3, 1.2], description="as `resize_range`, of LQ's size")
    gaussian_noise_prob2: Probability = Field(0.5, description="as `gaussian_noise_prob`")
    noise_range2: Range = Field([1, 25], description="as `noise_range`")
    poisson_scale_range2: Range = Field([0.05, 2.5], description="as `poisson_scale_range`")
    gray_noise_prob2: Probability = Field(0.4, description="as `gray_noise_prob`")
    jpeg_range2: RangeAbove0 = Field([30, 95], description="as `jpeg_range`")

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        needless = sorted(self.model_fields_set & Degradation.model_fields.keys() - {"degradation"})
        if self.degradation is None and needless:
            yield f"expected degradation: realesrgan with {', '.join(needless)}, got none"
        if self.resize_range[0] * LOADED < LEAST_RESIZED:
            least = LEAST_RESIZED / LOADED
            yield f"expected resize_range of at least {least}, or images are too small to blur, got {self.resize_range}"
        for name in ("jpeg_range", "jpeg_range2"):
            low, high = getattr(self, name)
            if low < 1 or high >= 100:  # BasicSR's JPEG divides by 0 at 100
                yield f"expected {name} from 1 to below 100, got {[low, high]}"


def unfit_pool(queue_size: int, batch: int) -> Iterator[str]:
    """Violated relations between the sizes of the pool and of a batch, one sentence each."""
    if queue_size % batch:
        yield f"expected queue_size to be a multiple of the batch of {batch} training pairs, got {queue_size}"

"""Patches of Real-ESRGAN's data set and degradation."""

import os
from os import path as osp
from typing import Any

import torch
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils import DiffJPEG, FileClient, USMSharp, img_process_util, scandir
from torch import Tensor
from torch.nn import functional as F

from bidiffsr_arch.compat.patch import contains, replace, replace_method
from bidiffsr_arch.config.degradation import Degradation, Kernels
from bidiffsr_arch.errors import InputError


def degradation_without_cuda() -> bool:
    """Real-ESRGAN's degradation needed CUDA: JPEG, sharpening and the pool of pairs are on the model's device."""
    if not contains(RealESRGANModel.__init__, ".cuda()"):
        return False
    enqueue = RealESRGANModel._dequeue_and_enqueue

    def __init__(self: RealESRGANModel, opt: dict[str, Any]) -> None:
        SRGANModel.__init__(self, opt)
        prepare_degradation(self)

    def _dequeue_and_enqueue(self: RealESRGANModel) -> None:
        if not hasattr(self, "queue_lr"):
            self.queue_lr, self.queue_gt = (image.new_zeros(self.queue_size, *image.shape[1:])
                                            for image in (self.lq, self.gt))  # fmt: skip
            self.queue_ptr = 0
        enqueue(self)

    replace_method(RealESRGANModel, "__init__", __init__)
    replace_method(RealESRGANModel, "_dequeue_and_enqueue", torch.no_grad()(_dequeue_and_enqueue))
    return True


def prepare_degradation(model: RealESRGANModel) -> None:
    """Set the attributes that `RealESRGANModel` adds to those of `SRGANModel`, on the model's device."""
    model.jpeger = DiffJPEG(differentiable=False).to(model.device)
    model.usm_sharpener = USMSharp().to(model.device)
    model.queue_size = model.opt.get("queue_size", Degradation.model_fields["queue_size"].default)


def blurs_without_cuda() -> bool:
    """Blurs by kernels of 21 and 51 pixels took seconds per image on a CPU: there they are computed by FFT."""
    stock = img_process_util.filter2D
    if not contains(stock, "F.conv2d(img, kernel, groups=b * c)"):
        return False

    def filter2D(img: Tensor, kernel: Tensor) -> Tensor:
        (height, width), side = img.shape[-2:], kernel.shape[-1]
        if img.device.type != "cpu" or side % 2 == 0:
            return stock(img, kernel)
        padded = F.pad(img, [side // 2] * 4, mode="reflect")
        size = padded.shape[-2:]
        spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=size)[:, None].conj()
        return torch.fft.irfft2(spectrum, s=size)[..., :height, :width].contiguous()

    replace(stock, filter2D)
    return True


def listed_images() -> bool:
    """RealESRGANDataset needed a list of images and twenty options: those left out have Real-ESRGAN's values."""
    stock = RealESRGANDataset.__init__
    if not contains(stock, "open(self.opt['meta_info'])"):
        return False
    defaults = Kernels().model_dump()

    def __init__(self: RealESRGANDataset, opt: dict[str, Any]) -> None:
        opt = {**defaults, **opt}
        is_listed = opt["io_backend"]["type"] == "lmdb" or opt.get("meta_info")
        stock(self, opt if is_listed else {**opt, "meta_info": os.devnull})
        self.opt = opt
        if not is_listed:
            self.paths = sorted(osp.join(self.gt_folder, name) for name in scandir(self.gt_folder))
        if not self.paths:
            raise InputError(f"expected images in {self.gt_folder}, found none")

    replace_method(RealESRGANDataset, "__init__", __init__)
    return True


class StrictClient(FileClient):
    """A client whose errors RealESRGANDataset does not mistake for a busy server."""

    def get(self, filepath: str, client_key: str = "default") -> bytes:
        """As FileClient's.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return super().get(filepath, client_key)
        except OSError as error:
            raise InputError(f"{filepath} cannot be read ({error.strerror or error})") from error


def replaced_images() -> bool:
    """An image that cannot be read was replaced by another, or was an UnboundLocalError: the error names the file."""
    stock = RealESRGANDataset.__getitem__
    if not contains(stock, "random.randint(0, self.__len__())"):
        return False

    def __getitem__(self: RealESRGANDataset, index: int) -> dict[str, Any]:
        if self.file_client is None:
            backend = dict(self.io_backend_opt)
            self.file_client = StrictClient(backend.pop("type"), **backend)
        return stock(self, index)

    replace_method(RealESRGANDataset, "__getitem__", __getitem__)
    return True

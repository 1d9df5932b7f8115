"""The reference implementation's name for a paired data set."""

from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset

from bidiffsr_arch.errors import InputError


class MultiPairedImageDataset(PairedImageDataset):
    """BasicSR's `PairedImageDataset` under the reference's name, with its key `task: SR`.

    LQ is returned as stored (RGB, float32 in 0 .. 1, shape (3, H, W)), GT at `scale` times its size. All other options
    are those of `PairedImageDataset`.

    Raises:
        InputError: `task` is not SR.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        task = opt.get("task", "SR")
        if task != "SR":
            raise InputError(
                f"expected `task: SR` in data set {opt.get('name', '')!r}, got {task!r}; only SR is supported"
            )
        super().__init__(opt)

"""The reference implementation's name for a paired data set."""

from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset

from bidiffsr_arch.errors import InputError


class MultiPairedImageDataset(PairedImageDataset):
    """BasicSR's `PairedImageDataset` under the name, and with the `task: SR` key, of the reference's option files.

    LQ is returned as stored (RGB, float32 in 0 .. 1, shape (3, H, W)), GT at `scale` times its size; every other key
    means what it means to `PairedImageDataset`.

    Raises:
        InputError: `task` is another one than SR.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        task = opt.get("task", "SR")
        if task != "SR":
            raise InputError(
                f"expected `task: SR` in data set {opt.get('name', '')!r}, got {task!r}; no other task is known"
            )
        super().__init__(opt)

"""In which order samples are trained on, and the seed of everything that is drawn for each of them.

A sample has an index in training: its epoch, and its position in the epoch's shuffled order. Crop and augmentation, and
in the model timestep and noise, depend on the seed and this index alone: not on the number of processes and loader
workers, nor on where a training was stopped and resumed.
"""

import math
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset, get_worker_info

# What a sample's seeds are for: its crop and augmentation, its timestep and noise.
DATA, DIFFUSION, NOISE_LEVEL = range(3)
KEY = "sample_index"

_drawing = threading.Lock()  # random and numpy have one state for all threads, and a prefetcher is a thread


class SampleIndex(NamedTuple):
    """Where in training a sample stands."""

    epoch: int
    position: int

    def seed(self, purpose: int, manual_seed: int) -> int:
        """63 bits, a function of the arguments and the index."""
        entropy = (abs(manual_seed), int(manual_seed < 0), self.epoch, self.position, purpose)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


FIRST = SampleIndex(0, 0)


class Request(NamedTuple):
    """What the sampler asks the data set for: an item, for a sample index."""

    item: int
    index: SampleIndex


@dataclass(frozen=True)
class Order:
    """How the samples of each epoch are distributed to batches of several processes.

    The processes take turns: from the first position p of an epoch on, rank r of n gets p + r, p + r + n, … Every
    process gets equally many; what is left over at the end of an epoch is left out, as are incomplete batches.

    Attributes:
        length: samples of an epoch.
        batch: samples of a batch in each process.
        processes: n.
        start: the first sample to be trained on; later epochs begin at position 0.
        iteration: the last iteration before `start`.
    """

    length: int
    batch: int
    processes: int = 1
    start: SampleIndex = FIRST
    iteration: int = 0

    def first(self, epoch: int) -> int:
        """The first position of an epoch."""
        return self.start.position if epoch == self.start.epoch else 0

    def share(self, epoch: int) -> int:
        """Samples that each process gets in an epoch."""
        return max(self.length - self.first(epoch), 0) // self.processes

    def positions(self, epoch: int, rank: int) -> range:
        """The positions of one process's samples."""
        first = self.first(epoch) + rank
        return range(first, first + self.share(epoch) * self.processes, self.processes)

    def iterations(self, epoch: int) -> int:
        """Complete batches of an epoch in each process."""
        return self.share(epoch) // self.batch

    def after(self, iteration: int) -> SampleIndex:
        """The index of the first sample that is not trained on when `iteration` is done."""
        done = iteration - self.iteration
        beyond = done - self.iterations(self.start.epoch)
        if beyond <= 0:
            return self.start._replace(position=self.start.position + done * self.batch * self.processes)
        whole, rest = divmod(beyond - 1, self.iterations(self.start.epoch + 1))
        return SampleIndex(self.start.epoch + 1 + whole, (rest + 1) * self.batch * self.processes)

    def last_epoch(self, total_iter: int) -> int:
        """The epoch in which `total_iter` is reached."""
        beyond = total_iter - self.iteration - self.iterations(self.start.epoch)
        return self.start.epoch + math.ceil(max(beyond, 0) / self.iterations(self.start.epoch + 1))


class OrderedSampler(EnlargedSampler):
    """BasicSR's sampler with sample indices, one order for any number of processes, and a start within an epoch.

    Args:
        dataset, rank, ratio: as EnlargedSampler's.
        order: see `Order`.
    """

    def __init__(self, dataset: Dataset, rank: int, ratio: float, order: Order) -> None:
        super().__init__(dataset, order.processes, rank, ratio)
        self.order = order
        self.num_samples = order.share(order.start.epoch + 1)

    def __iter__(self) -> Iterator[Request]:
        count = len(self.dataset)
        shuffled = torch.randperm(self.order.length, generator=torch.Generator().manual_seed(self.epoch))
        for position in self.order.positions(self.epoch, self.rank):
            yield Request(int(shuffled[position]) % count, SampleIndex(self.epoch, position))


class SeededDataset(Dataset):
    """A data set of which each sample is drawn by the seed of its index, and carries it as ``sample_index``.

    ``sample_index`` is the text "epoch:position", since prefetchers move numbers to the GPU, from where reading them
    costs a wait. In a loader's worker torch's generator is seeded, too; in the main process it belongs to dropout.
    """

    def __init__(self, dataset: Dataset, manual_seed: int) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, "opt", None)
        self.manual_seed = manual_seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, wanted: Request) -> Any:
        seed = wanted.index.seed(DATA, self.manual_seed)
        with _drawing:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if get_worker_info() is not None:
                torch.manual_seed(seed)
            sample = self.dataset[wanted.item]
        if not isinstance(sample, Mapping):
            return sample
        return {**sample, KEY: f"{wanted.index.epoch}:{wanted.index.position}"}


def sample_indices(batch: Mapping[str, Any]) -> list[SampleIndex]:
    """The indices of a batch's samples; none where they do not come from a `SeededDataset`, as in validation."""
    return [SampleIndex(*map(int, text.split(":"))) for text in batch.get(KEY, ())]

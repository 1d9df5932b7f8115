"""The order of training samples, and the seed of all random numbers of each sample.

A sample's index is its epoch and its position in the epoch's shuffled order. Its crop and augmentation, and in the
model its timestep and noise, depend only on the seed and this index, not on the number of processes and loader workers
nor on when training was stopped and resumed.
"""

import math
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset, get_worker_info

# Purposes of a sample's seeds: crop and augmentation; timestep and noise; a noise level between timesteps; degradation.
DATA, DIFFUSION, NOISE_LEVEL, DEGRADATION = range(4)
KEY = "sample_index"

_drawing = threading.Lock()  # random and numpy share their state between threads, such as that of a prefetcher


class SampleIndex(NamedTuple):
    """Index of a sample in training: epoch and position."""

    epoch: int
    position: int

    def seed(self, purpose: int, manual_seed: int) -> int:
        """A seed of 63 bits that depends only on the arguments and the index."""
        entropy = (abs(manual_seed), int(manual_seed < 0), self.epoch, self.position, purpose)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


FIRST = SampleIndex(0, 0)


class Request(NamedTuple):
    """A request of the sampler to the data set: an item, and its sample index."""

    item: int
    sample: SampleIndex


@dataclass(frozen=True)
class Order:
    """Distribution of the samples of each epoch to batches of several processes.

    Samples are dealt in turn: from the first position p of an epoch, rank r of n gets p + r, p + r + n, … Every process
    gets the same number; the remainder of an epoch and incomplete batches are dropped.

    Attributes:
        length: samples per epoch.
        batch: samples per batch and process.
        processes: number n of processes.
        start: the first sample to train on; later epochs begin at position 0.
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
        """Samples per process in an epoch."""
        return max(self.length - self.first(epoch), 0) // self.processes

    def positions(self, epoch: int, rank: int) -> range:
        """The positions of the samples of one process."""
        first = self.first(epoch) + rank
        return range(first, first + self.share(epoch) * self.processes, self.processes)

    def iterations(self, epoch: int) -> int:
        """Complete batches per process in an epoch."""
        return self.share(epoch) // self.batch

    def after(self, iteration: int) -> SampleIndex:
        """Index of the first sample after `iteration`."""
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
    """BasicSR's sampler with sample indices, an order independent of the number of processes, and a start in an epoch.

    Args:
        dataset, rank, ratio: as in EnlargedSampler.
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed random and numpy inside the context; other threads that enter it wait."""
    with _drawing:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


class SeededDataset(Dataset):
    """A data set that seeds random generators per sample, by its index, and returns the index as ``sample_index``.

    ``sample_index`` is a string "epoch:position": prefetchers move numbers to the GPU, and reading them there waits for
    the GPU. torch's generator is seeded in loader workers only; in the main process dropout uses it.
    """

    def __init__(self, dataset: Dataset, manual_seed: int) -> None:
        self.dataset: Any = dataset
        self.opt = getattr(dataset, "opt", None)
        self.manual_seed = manual_seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, wanted: Request) -> Any:
        seed = wanted.sample.seed(DATA, self.manual_seed)
        with seeded(seed):
            if get_worker_info() is not None:
                torch.manual_seed(seed)
            sample = self.dataset[wanted.item]
        if not isinstance(sample, Mapping):
            return sample
        return {**sample, KEY: f"{wanted.sample.epoch}:{wanted.sample.position}"}


def sample_indices(batch: Mapping[str, Any]) -> list[SampleIndex]:
    """The sample indices of a batch; empty if it is not from a `SeededDataset`, as in validation."""
    return [SampleIndex(*map(int, text.split(":"))) for text in batch.get(KEY, ())]

"""Which sample stands where in training, and what chance gives it there.

A sample's place is its epoch and its position in the epoch's shuffled order. All that is drawn for it (crop,
augmentation, and in the model its timestep and noise) depends on the seed and the place alone: not on the number of
processes and loader workers, nor on when the training was stopped and resumed.
"""

import random
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset, get_worker_info

# The seeds of a place: one for its crop and augmentation, one for its timestep and noise.
DATA, DIFFUSION = range(2)

_drawing = threading.Lock()  # random and numpy have one state for all threads, and a prefetcher is a thread


class Place(NamedTuple):
    """Where in training a sample stands."""

    epoch: int
    position: int

    def seed(self, purpose: int, manual_seed: int) -> int:
        """63 bits that depend on nothing else."""
        entropy = (abs(manual_seed), int(manual_seed < 0), self.epoch, self.position, purpose)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


class PlacedIndex(NamedTuple):
    """What the sampler asks the data set for."""

    index: int
    place: Place


class PlacedSampler(EnlargedSampler):
    """BasicSR's sampler, with places, one order for any number of processes, and a start within an epoch.

    The processes take turns: of the positions 0, 1, 2, … of an epoch, rank r of n has r, r + n, r + 2n, …

    Args:
        dataset, num_replicas, rank, ratio: as EnlargedSampler's.
        start: the place of the first sample to give; the epochs after that one start at position 0.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int, ratio: float, start: Place) -> None:
        super().__init__(dataset, num_replicas, rank, ratio)
        self.length = int(len(dataset) * ratio)
        self.num_samples = self.length // num_replicas
        self.start = start

    def __iter__(self) -> Iterator[PlacedIndex]:
        count = len(self.dataset)
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.epoch))
        first = self.start.position if self.epoch == self.start.epoch else 0
        for position in range(first + self.rank, self.num_samples * self.num_replicas, self.num_replicas):
            yield PlacedIndex(int(order[position]) % count, Place(self.epoch, position))


class PlacedDataset(Dataset):
    """A data set of which each sample is drawn by the seed of its place, and carries it as ``place``.

    ``place`` is the text "epoch:position", since prefetchers move numbers to the GPU, from where reading them costs a
    wait. In a loader's worker torch's generator is seeded, too; in the main process it belongs to dropout.
    """

    def __init__(self, dataset: Dataset, manual_seed: int) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, "opt", None)
        self.manual_seed = manual_seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, wanted: PlacedIndex) -> dict[str, Any]:
        seed = wanted.place.seed(DATA, self.manual_seed)
        with _drawing:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if get_worker_info() is not None:
                torch.manual_seed(seed)
            sample = self.dataset[wanted.index]
        return {**sample, "place": f"{wanted.place.epoch}:{wanted.place.position}"}


def places_of(batch: dict[str, Any]) -> list[Place]:
    """The places of a batch's samples; none where they come from a loader without places, as in validation."""
    return [Place(*map(int, text.split(":"))) for text in batch.get("place", ())]

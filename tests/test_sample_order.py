"""Places in training: the same samples with the same chance, however many processes and workers share them."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from bidiffsr_arch.training.sample_order import (
    DATA,
    DIFFUSION,
    Place,
    PlacedDataset,
    PlacedIndex,
    PlacedSampler,
    places_of,
)


class Draws(Dataset):
    """What a sample's augmentation draws from the generators that BasicSR uses."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict:
        return {"index": index, "draws": torch.tensor([random.random(), np.random.rand()])}


def sampled(processes: int, rank: int, epoch: int, start: Place = Place(0, 0), ratio: float = 2.5) -> list[PlacedIndex]:  # noqa: B008
    sampler = PlacedSampler(Draws(), processes, rank, ratio, start)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(processes=st.integers(1, 6), epoch=st.integers(0, 5), ratio=st.sampled_from([1, 1.5, 3]))
def test_processes_share_one_order(processes, epoch, ratio):
    whole = sampled(1, 0, epoch, ratio=ratio)
    assert [entry.place for entry in whole] == [Place(epoch, position) for position in range(int(7 * ratio))]
    shares = [sampled(processes, rank, epoch, ratio=ratio) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(whole) // processes}
    together = [entry for turn in zip(*shares, strict=True) for entry in turn]
    assert together == whole[: len(together)]


@given(position=st.integers(0, 17), processes=st.integers(1, 3))
def test_an_epoch_goes_on_at_its_position_and_the_next_one_starts_anew(position, processes):
    position -= position % processes
    for rank in range(processes):
        rest = [entry for entry in sampled(processes, rank, 4) if entry.place.position >= position]
        assert sampled(processes, rank, 4, Place(4, position)) == rest
        assert sampled(processes, rank, 5, Place(4, position)) == sampled(processes, rank, 5)


def test_epochs_have_orders_of_their_own():
    assert [entry.index for entry in sampled(1, 0, 0)] != [entry.index for entry in sampled(1, 0, 1)]


@given(st.lists(st.tuples(*[st.integers(0, 2**31)] * 3, st.sampled_from([DATA, DIFFUSION])), unique=True, min_size=2))
def test_seeds_differ_wherever_anything_differs(entries):
    seeds = [Place(epoch, position).seed(purpose, seed) for epoch, position, seed, purpose in entries]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sample_draws_depends_on_seed_and_place_alone(workers):
    loader = DataLoader(PlacedDataset(Draws(), 3), batch_size=3, sampler=PlacedSampler(Draws(), 1, 0, 1, Place(0, 0)),
                        num_workers=workers)  # fmt: skip
    batches = list(loader)
    drawn = {place: tuple(draws.tolist()) for batch in batches
             for place, draws in zip(places_of(batch), batch["draws"], strict=True)}  # fmt: skip
    assert len(set(drawn.values())) == 7
    again = PlacedDataset(Draws(), 3)
    for place, draws in reversed(drawn.items()):
        assert tuple(again[PlacedIndex(0, place)]["draws"].tolist()) == draws
        assert tuple(PlacedDataset(Draws(), 4)[PlacedIndex(0, place)]["draws"].tolist()) != draws


def test_loading_in_the_main_process_leaves_dropout_s_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    PlacedDataset(Draws(), 3)[PlacedIndex(0, Place(0, 0))]
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_has_no_places():
    assert places_of({"lq": torch.zeros(1)}) == []

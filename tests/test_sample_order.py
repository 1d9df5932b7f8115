"""The order of samples: the same samples with the same seeds for any number of processes and workers."""

import dataclasses
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
    Order,
    OrderedSampler,
    Request,
    SampleIndex,
    SeededDataset,
    sample_indices,
)

ORDERS = st.builds(
    Order,
    length=st.integers(6, 60),
    batch=st.integers(1, 3),
    processes=st.integers(1, 2),
    start=st.builds(SampleIndex, st.integers(0, 3), st.integers(0, 60)),
    iteration=st.integers(0, 9),
)


class Draws(Dataset):
    """Random numbers of a sample's augmentation from the generators that BasicSR uses."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict:
        return {"index": index, "draws": torch.tensor([random.random(), np.random.rand()])}


def sampled(order: Order, rank: int, epoch: int, ratio: float = 2.5) -> list[Request]:
    sampler = OrderedSampler(Draws(), rank, ratio, order)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(processes=st.integers(1, 6), epoch=st.integers(0, 5), ratio=st.sampled_from([1, 1.5, 3]))
def test_processes_share_one_order(processes, epoch, ratio):
    length = int(7 * ratio)
    whole = sampled(Order(length, 1), 0, epoch, ratio)
    assert [entry.sample for entry in whole] == [SampleIndex(epoch, position) for position in range(length)]
    shares = [sampled(Order(length, 1, processes), rank, epoch, ratio) for rank in range(processes)]
    assert {len(share) for share in shares} == {length // processes}
    together = [entry for turn in zip(*shares, strict=True) for entry in turn]
    assert together == whole[: len(together)]


@given(order=ORDERS, processes=st.integers(1, 7))
def test_processes_get_equally_many_wherever_they_start(order, processes):
    """Also where the position is no multiple of their number, as after a resume in another number of processes."""
    order = dataclasses.replace(order, processes=processes)
    for epoch in (order.start.epoch, order.start.epoch + 1):
        shares = [order.positions(epoch, rank) for rank in range(processes)]
        assert {len(share) for share in shares} == {order.share(epoch)}
        first = order.start.position if epoch == order.start.epoch else 0
        together = sorted(position for share in shares for position in share)
        assert together == list(range(first, first + len(together)))
        assert len(together) <= max(order.length - first, 0) < len(together) + processes


@given(order=ORDERS, iterations=st.integers(0, 40))
def test_the_index_after_an_iteration_is_that_of_the_trainers_next_sample(order, iterations):
    """Against BasicSR's loop over epochs and batches."""
    done, epoch = 0, order.start.epoch
    stands = order.start
    while done < iterations:
        positions = [order.positions(epoch, rank) for rank in range(order.processes)]
        for first in range(0, order.iterations(epoch) * order.batch, order.batch):
            if done < iterations:
                done += 1
                last = max(position[first + order.batch - 1] for position in positions)
                stands = SampleIndex(epoch, last + 1)
        epoch += 1
    assert order.after(order.iteration + iterations) == stands
    assert order.last_epoch(order.iteration + iterations) == (stands.epoch if iterations else order.start.epoch)


@given(position=st.integers(0, 17), processes=st.integers(1, 3))
def test_an_epoch_goes_on_at_its_position_and_the_next_one_starts_anew(position, processes):
    order, resumed = Order(17, 1, processes), Order(17, 1, processes, SampleIndex(4, position))
    rest = [entry for rank in range(processes) for entry in sampled(resumed, rank, 4)]
    assert {entry for entry in rest} <= set(sampled(Order(17, 1), 0, 4)[position:])
    for rank in range(processes):
        assert sampled(resumed, rank, 5) == sampled(order, rank, 5)


def test_epochs_have_orders_of_their_own():
    first, second = ([entry.item for entry in sampled(Order(17, 1), 0, epoch)] for epoch in (0, 1))
    assert first != second


@given(st.lists(st.tuples(*[st.integers(0, 2**31)] * 3, st.sampled_from([DATA, DIFFUSION])), unique=True, min_size=2))
def test_seeds_differ_for_different_arguments(entries):
    seeds = [SampleIndex(epoch, position).seed(purpose, seed) for epoch, position, seed, purpose in entries]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sample_draws_depends_on_seed_and_index_alone(workers):
    sampler = OrderedSampler(Draws(), 0, 1, Order(7, 3))
    batches = list(DataLoader(SeededDataset(Draws(), 3), batch_size=3, sampler=sampler, num_workers=workers))
    drawn = {index: tuple(draws.tolist()) for batch in batches
             for index, draws in zip(sample_indices(batch), batch["draws"], strict=True)}  # fmt: skip
    assert len(set(drawn.values())) == 7
    again = SeededDataset(Draws(), 3)
    for index, draws in reversed(drawn.items()):
        assert tuple(again[Request(0, index)]["draws"].tolist()) == draws
        assert tuple(SeededDataset(Draws(), 4)[Request(0, index)]["draws"].tolist()) != draws


def test_loading_in_the_main_process_does_not_change_dropouts_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SeededDataset(Draws(), 3)[Request(0, SampleIndex(0, 0))]
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_has_no_indices():
    assert sample_indices({"lq": torch.zeros(1)}) == []

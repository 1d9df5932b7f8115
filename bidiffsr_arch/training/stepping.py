"""A training step with mixed precision, gradient accumulation, clipping and activation checkpointing."""

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bidiffsr_arch.archs.blocks import set_checkpointing
from bidiffsr_arch.binary import cached_weights
from bidiffsr_arch.config.training import Step
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed.training import use_training_kernels
from bidiffsr_arch.training.early_updates import can_update_early, early_updates
from bidiffsr_arch.training.group_parameters import GroupParameters

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPP_COMPILERS = ("g++", "clang++", "c++")


class LossTerms(Protocol):
    """The terms of a loss, by name."""

    def __call__(self, prediction: Tensor, target: Tensor, inputs: Sequence[Tensor], /) -> dict[str, Tensor]:
        """Means over the samples, in the target's type; `inputs` is what the network was given."""


class Stepping:
    """A training step with options that affect its speed and memory, and its result only by rounding.

    With ``amp``, signs, scales and GroupNorm's statistics stay float32. With ``accumulate``, BatchNorm computes its
    statistics over the parts of a batch.

    Args:
        train: the options.
    """

    def __init__(self, train: Step) -> None:
        self.amp = AMP[train.amp] if train.amp else None
        self.compile, self.checkpointing, self.channels_last = (
            bool(switch) for switch in (train.compile, train.checkpointing, train.channels_last)
        )
        self.accumulate = train.accumulate or 1
        self.grad_clip = train.grad_clip
        self.scaler = torch.amp.GradScaler(enabled=False)

    def prepare(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Prepare a network, in place, before it is wrapped for several processes.

        On a CPU with Numba its 1-bit convolutions use XNOR-popcount, on maps in contiguous layout.

        Raises:
            InputError: it has no ResBlocks to checkpoint, or there is no compiler for ``compile``.
        """
        if self.amp is torch.float16:
            self.scaler = torch.amp.GradScaler(device.type)
        if self.channels_last:
            cast(Any, network).to(memory_format=torch.channels_last)  # torch's type hints lack this overload
        elif device.type == "cpu":
            use_training_kernels(network)
        if self.checkpointing:
            set_checkpointing(network)
        if self.compile:
            if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), *CPP_COMPILERS))):
                raise InputError("expected a C++ compiler for train: compile: true, found none; install g++")
            # channels_last suits float convolutions on a CPU, but not the popcount kernels.
            network.compile(options={"layout_optimization": False} if device.type == "cpu" else None)
        return network

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: LossTerms,
        inputs: list[Tensor],
        target: Tensor,
        groups: GroupParameters | None = None,
    ) -> dict[str, Tensor]:
        """Update the network once. Afterwards, some parameters may have no gradients, see `early_updates`.

        Args:
            network: returned by `prepare`, possibly wrapped for several processes.
            loss: the terms whose sum is minimised, see `bidiffsr_arch.training.objective.Objective`.
            inputs: arguments of the network, each (B, ...).
            target: target of the prediction, (B, ...).
            groups: the `GroupParameters` of the optimizer's parameters, after `begin`.
        Returns:
            The terms of the whole batch, without gradients.
        Raises:
            InputError: B is not a multiple of ``accumulate``.
        """
        if len(target) % self.accumulate:
            raise InputError(
                f"expected train: accumulate to divide the batch of {len(target)} images, got {self.accumulate}"
            )
        groups = groups or GroupParameters()
        optimizer.zero_grad()
        groups.clear_gradients()
        parts = list(zip(*(self._laid_out(tensor).chunk(self.accumulate) for tensor in (*inputs, target)), strict=True))
        total: dict[str, Tensor] = {}
        # A single call gains nothing from cached weights; DataParallel copies the weights to each device.
        once = len(parts) == 1 or isinstance(network, nn.DataParallel)
        early = can_update_early(network, optimizer) and not self._needs_all_gradients()
        no_sync = getattr(network, "no_sync", nullcontext)
        with nullcontext() if once else cached_weights(network):
            for number, (*part, part_target) in enumerate(parts, 1):
                with no_sync() if number < len(parts) else nullcontext():  # gradients are exchanged in the last part
                    with torch.autocast(target.device.type, dtype=self.amp, enabled=self.amp is not None):
                        prediction = network(*part)
                    terms = loss(prediction.to(part_target.dtype), part_target, part)
                    part_loss = torch.stack([term / len(parts) for term in terms.values()]).sum()
                    with early_updates(optimizer, groups) if early else nullcontext():
                        self.scaler.scale(part_loss).backward()
                for name, term in terms.items():
                    total[name] = total.get(name, 0) + term.detach() / len(parts)
        groups.split_gradients()
        if self.grad_clip:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), self.grad_clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        return total

    def _needs_all_gradients(self) -> bool:
        """Whether updates must wait for the end of the backward pass; a compiled pass returns all gradients at once."""
        return self.accumulate > 1 or bool(self.grad_clip) or self.scaler.is_enabled() or self.compile

    def _laid_out(self, tensor: Tensor) -> Tensor:
        images = self.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if images else tensor

"""Separate optimizer parameters for each timestep group of TaR and TaA, as in the reference.

A bank stores all K groups in one (K, C) tensor, of which a step uses the groups of its timesteps. Adam would update the
unused groups, too, by the momentum of earlier steps; it skips parameters without a gradient.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn, optim

from bidiffsr_arch.binary import timestep_group
from bidiffsr_arch.binary.bank import TimestepBank


class GroupParameters:
    """Passes each row of a bank to the optimizer as a separate parameter that shares the bank's memory.

    Args:
        network: the bare network; if it is None or has no banks, all methods do nothing.
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        self.network: Any = network
        self.rows: dict[Tensor, list[nn.Parameter]] = {
            bank: [nn.Parameter(row) for row in bank.data]
            for module in (network.modules() if network is not None else ())
            if isinstance(module, TimestepBank) and module.groups > 1
            for bank in module.parameters(recurse=False)
        }
        self.whole: list[Tensor] = []
        self.used: set[int] = set()

    def split(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """`parameters`, with each bank replaced by its rows, for the optimizer."""
        self.whole = list(parameters)
        return [part for parameter in self.whole for part in self.rows.get(parameter, [parameter])]

    def leaves(self, optimizer: optim.Optimizer) -> Iterator[Tensor]:
        """The parameters that receive gradients: the optimizer's, with rows replaced by their banks."""
        rows = {row for bank in self.rows.values() for row in bank}
        yield from (p for group in optimizer.param_groups for p in group["params"] if p not in rows)
        yield from self.rows

    def begin(self, time: Tensor) -> None:
        """Record the groups that a step uses in all processes; `time`, (B,), are the timesteps of this one."""
        if not self.rows:
            return
        groups = self.network.dynamic_group
        mask = torch.zeros(groups, device=time.device)
        mask[timestep_group(time, self.network.total_step, groups)] = 1
        if distributed.is_initialized():
            distributed.all_reduce(mask, distributed.ReduceOp.MAX)
        self.used = set(mask.nonzero().flatten().tolist())

    def split_gradient(self, parameter: Tensor) -> None:
        """Split a bank's gradient among its used rows; does nothing for other parameters."""
        rows = self.rows.get(parameter, [])
        if rows and (rows[0].data_ptr() != parameter.data_ptr() or rows[0].dtype != parameter.dtype):
            for row, data in zip(rows, parameter.data, strict=True):  # the network was moved or converted
                row.data = data
        for group, row in enumerate(rows):
            row.grad = parameter.grad[group] if group in self.used and parameter.grad is not None else None

    def split_gradients(self) -> None:
        """`split_gradient` for all banks."""
        for bank in self.rows:
            self.split_gradient(bank)

    def clear_gradients(self, parameters: Iterable[Tensor] | None = None) -> None:
        """Free the gradients of parameters and their rows; of all banks if None."""
        for parameter in self.rows if parameters is None else parameters:
            for part in (parameter, *self.rows.get(parameter, ())):
                part.grad = None

    def split_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state, in which whole banks are split into rows."""
        parts = [len(self.rows.get(parameter, [parameter])) for parameter in self.whole]
        groups = state["param_groups"]
        if len(groups) != 1 or len(groups[0]["params"]) != len(parts) or sum(parts) == len(parts):
            return state
        split: dict[int, Any] = {}
        for old, entry in state["state"].items():
            bank, first = self.whole[old].shape, sum(parts[:old])
            for part in range(parts[old]):
                split[first + part] = {
                    name: value[part].clone() if parts[old] > 1 and getattr(value, "shape", None) == bank else value
                    for name, value in entry.items()
                }
        return {"state": split, "param_groups": [groups[0] | {"params": list(range(sum(parts)))}]}

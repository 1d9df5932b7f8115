"""Timestep-aware parameters: K sets of per-channel parameters; each sample uses the set of its timestep group.

BI-DiffSR's TaR is a bank of biases, its TaA a bank of RPReLUs. A bank stores (K, C) tensors and is indexed by group, so
a batch may mix timesteps. Checkpoints use the reference's names, one tensor per group.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from bidiffsr_arch.binary.convolve import ScaledSums
from bidiffsr_arch.binary.rprelu import rprelu


def timestep_group(time: Tensor, total_step: int, groups: int) -> Tensor:
    """``k = floor(K t / T)``, clamped to 0..K-1 (Chen et al. 2024, eq. 8).

    Args:
        time: timesteps, shape (B,), integer or float, 0 <= t < total_step.
    Returns:
        (B,), int64.
    """
    return torch.div(groups * time, total_step, rounding_mode="floor").long().clamp(0, groups - 1)


class TimestepBank(nn.Module):
    """K sets of per-channel parameters, loaded and saved as one tensor per set.

    Args:
        names: for each parameter the reference's name for set k, with ``{k}``, and that tensor's shape, -1 for C.
        init: initial value of each parameter.
        groups: number K of sets.
        channels: number C of channels.
    """

    def __init__(
        self, names: Mapping[str, tuple[str, tuple[int, ...]]], init: Mapping[str, float], groups: int, channels: int
    ) -> None:
        super().__init__()
        self.groups, self.channels = groups, channels
        self._names = dict(names)
        for name, value in init.items():
            self.register_parameter(name, nn.Parameter(torch.full((groups, channels), value)))

    def pick(self, name: str, group: Tensor | None) -> Tensor:
        """Parameter `name` for each sample's group, (B, C, 1, 1); (1, C, 1, 1) if one set serves all timesteps.

        Raises:
            ValueError: `group` is None and there are several sets.
        """
        bank: Tensor = getattr(self, name)
        if self.groups > 1:
            if group is None:
                raise ValueError(
                    f"expected the timestep group of each sample for a bank of {self.groups} sets, got None"
                )
            bank = bank[group]
        return bank[:, :, None, None]

    def extra_repr(self) -> str:
        """Arguments for `print(network)`."""
        return f"groups={self.groups}, channels={self.channels}"

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        for k in range(self.groups):
            for name, (template, shape) in self._names.items():
                bank = getattr(self, name) if keep_vars else getattr(self, name).detach()
                destination[prefix + template.format(k=k)] = bank[k].view(shape)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        used = set()
        for name, (template, shape) in self._names.items():
            keys = [prefix + template.format(k=k) for k in range(self.groups)]
            missing_keys += [key for key in keys if strict and key not in state_dict]
            expected = torch.Size(self.channels if n == -1 else n for n in shape)
            for k, key in enumerate(keys):
                if key not in state_dict:
                    continue
                used.add(key)
                if state_dict[key].shape != expected:
                    error_msgs.append(
                        f"size mismatch for {key}: expected {tuple(expected)}, got {tuple(state_dict[key].shape)}"
                    )
                    continue
                with torch.no_grad():
                    getattr(self, name)[k].copy_(state_dict[key].flatten())
        if strict:
            unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in used]


def repeat_groups(network: nn.Module, state: MutableMapping[str, Tensor]) -> tuple[int, int] | None:
    """Repeat the banks of a state dict with m timestep groups for a network with n. Group k of n gets the parameters of
    group ``floor(k m / n)`` of m, which so far was used for the same timesteps.

    Args:
        network: the network into which `state` will be loaded.
        state: changed in place; a bank stays unchanged if m does not divide n.
    Returns:
        m and n; None if nothing was repeated.
    """
    repeated = None
    for path, bank in network.named_modules():
        if not isinstance(bank, TimestepBank):
            continue
        for template, _ in bank._names.values():
            keys = [f"{path}.{template.format(k=k)}".removeprefix(".") for k in range(bank.groups)]
            sets = [state[key] for key in keys if key in state]
            if sets and len(sets) < bank.groups and bank.groups % len(sets) == 0:
                repeated, each = (len(sets), bank.groups), bank.groups // len(sets)
                state.update({key: sets[k // each] for k, key in enumerate(keys)})
    return repeated


class TimestepBias(TimestepBank):
    """TaR: ``x + b_k`` (Chen et al. 2024, eq. 9)."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__({"bias": ("dynamic_move_{k}.bias", (1, -1, 1, 1))}, {"bias": 0.0}, groups, channels)

    def forward(self, x: Tensor, group: Tensor | None = None) -> Tensor:
        """Add each sample's bias to x, (B, C, H, W); `group` is int64 (B,), or None if K = 1."""
        return x + self.pick("bias", group)


class TimestepRPReLU(TimestepBank):
    """TaA: ``PReLU_k(x + c0_k) + c1_k`` per channel (ReActNet's RPReLU; Chen et al. 2024, eq. 10)."""

    def __init__(self, groups: int, channels: int) -> None:
        names = {
            "bias0": ("dynamic_relu_{k}.pr_bias0.bias", (1, -1, 1, 1)),
            "slope": ("dynamic_relu_{k}.pr_prelu.weight", (-1,)),
            "bias1": ("dynamic_relu_{k}.pr_bias1.bias", (1, -1, 1, 1)),
        }
        super().__init__(names, {"bias0": 0.0, "slope": 0.25, "bias1": 0.0}, groups, channels)

    def forward(self, z: Tensor, group: Tensor | None = None, sums: ScaledSums | None = None) -> Tensor:
        """Apply each sample's RPReLU to z, (B, C, H, W); `group` is int64 (B,), or None if K = 1.

        `sums` is described in `rprelu`.
        """
        bias0, slope, bias1 = (self.pick(name, group) for name in ("bias0", "slope", "bias1"))
        return rprelu(z, bias0, slope, bias1, sums)

"""A SRModel whose validation may also list what a network costs, and an LPIPS whose weights are not there."""

from contextlib import nullcontext
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger

from bidiffsr_arch.metrics.cost import measured_network
from bidiffsr_arch.metrics.lpips import WeightsMissing, load_lpips


class MeasuredSRModel(SRModel):
    """BasicSR's SRModel with the two things that its metrics loop lacks.

    ``calculate_params`` and ``calculate_ops`` are told the network, since BasicSR hands metrics only pictures. An LPIPS
    metric whose weights cannot be had is logged as n/a, once, with the line that says what to do, and the others go on.
    """

    def network_to_measure(self) -> torch.nn.Module | None:
        """The bare network whose cost is counted; None where there is none."""
        return self.get_bare_model(self.net_g) if hasattr(self, "net_g") else None

    def nondist_validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """As BasicSR's."""
        self._drop_metrics_without_weights()
        network = self.network_to_measure()
        with measured_network(network) if network is not None else nullcontext():
            super().nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def _drop_metrics_without_weights(self) -> None:
        metrics = self.opt["val"].get("metrics") or {}
        for name, options in list(metrics.items()):
            if options.get("type") != "calculate_lpips":
                continue
            try:
                load_lpips(options.get("net", "alex"), options.get("weights"))
            except WeightsMissing as missing:
                del metrics[name]
                get_root_logger().warning(f"# {name}: n/a ({missing})")
        if not metrics:
            self.opt["val"]["metrics"] = None

"""Metrics that BasicSR lacks: LPIPS, pyiqa's, and a network's parameters and operations in the paper's accounting.

`cost` counts, `cost_rules` is the table of what each operator costs, `published` holds the paper's figures.
"""

from bidiffsr_arch.metrics.cost import Cost, calculate_ops, calculate_params, count_cost
from bidiffsr_arch.metrics.iqa import calculate_iqa
from bidiffsr_arch.metrics.lpips import calculate_lpips

__all__ = ["Cost", "calculate_iqa", "calculate_lpips", "calculate_ops", "calculate_params", "count_cost"]

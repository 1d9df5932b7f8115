"""Metrics that BasicSR lacks: LPIPS, pyiqa's, and a network's parameters and operations in the paper's accounting.

`cost` counts, `cost_rules` is the table of operators' costs, `measured` has the metrics for BasicSR, `published` the
paper's figures.
"""

from bidiffsr_arch.metrics.cost import Cost, count_cost
from bidiffsr_arch.metrics.iqa import calculate_iqa
from bidiffsr_arch.metrics.lpips import calculate_lpips
from bidiffsr_arch.metrics.measured import calculate_ops, calculate_params

__all__ = ["Cost", "calculate_iqa", "calculate_lpips", "calculate_ops", "calculate_params", "count_cost"]

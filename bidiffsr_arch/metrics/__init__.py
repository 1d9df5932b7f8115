"""What BasicSR's metrics lack: LPIPS, and the cost of a network in the paper's accounting."""

from bidiffsr_arch.metrics.cost import Cost, calculate_ops, calculate_params, count_cost
from bidiffsr_arch.metrics.lpips import calculate_lpips

__all__ = ["Cost", "calculate_lpips", "calculate_ops", "calculate_params", "count_cost"]

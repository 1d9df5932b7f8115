"""Params and OPs as printed in the paper (Chen et al. 2024, Tables 1 and 2), by table and row."""

from typing import NamedTuple


class Published(NamedTuple):
    """A row's cost: parameters in M, and operations in G of one sampling step for a 3 x 256 x 256 output."""

    params_m: float
    ops_g: float


PUBLISHED_SIZE = (256, 256)
PUBLISHED = {
    "table2/SR3": Published(55.41, 176.41),
    "table2/BNN": Published(4.78, 37.93),
    "table2/DoReFa": Published(4.78, 37.93),
    "table2/XNOR": Published(4.78, 37.93),
    "table2/IRNet": Published(4.78, 37.93),
    "table2/ReActNet": Published(4.85, 37.93),
    "table2/BBCU": Published(4.82, 37.75),
    "table2/BI-DiffSR": Published(4.58, 36.67),
    "table1_breakdown/Baseline": Published(4.29, 36.67),
    "table1_breakdown/+Identity": Published(4.29, 36.67),
    "table1_breakdown/+CP-Down&Up": Published(4.29, 36.67),
    "table1_breakdown/+CS-Fusion": Published(4.30, 36.67),
    "table1_breakdown/+TaR&TaA": Published(4.58, 36.67),
    "table1_fusion/Add": Published(4.10, 33.40),
    "table1_fusion/Concat": Published(4.29, 36.67),
    "table1_fusion/Split": Published(4.30, 36.67),
    "table1_fusion/CS-Fusion": Published(4.30, 36.67),
    "table1_pairs/1": Published(4.30, 36.67),
    "table1_pairs/2": Published(4.37, 36.67),
    "table1_pairs/5": Published(4.58, 36.67),
    "table1_timestep_aware/w/o": Published(4.30, 36.67),
    "table1_timestep_aware/In": Published(4.37, 36.67),
    "table1_timestep_aware/Out": Published(4.51, 36.67),
    "table1_timestep_aware/All": Published(4.58, 36.67),
}

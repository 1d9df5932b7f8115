"""Timing of packed inference against float networks on this machine, for `basicsr bench`: `timing` measures, with
memory of each network in a process of its own (`memory`) and rates of layers (`layers`).
"""

__all__ = ["layers", "machine", "memory", "timing", "turns"]

"""Benchmarks of packed and float networks on this machine, for `basicsr bench`.

`timing` measures times of sampling steps, `memory` each network's peak memory in a separate process, `layers` the rates
of single layers.
"""

__all__ = ["layers", "machine", "memory", "timing", "turns"]

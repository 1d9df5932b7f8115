"""Timing of packed inference against float networks on this machine, for `basicsr bench`."""

__all__ = ["timing"]

"""Timing of packed inference against float networks on this machine."""

"""Figures of what a network does, after those of the paper. Needs matplotlib, the extra `plot`."""

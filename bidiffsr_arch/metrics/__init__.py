"""Metrics that BasicSR lacks; each takes BasicSR's BGR uint8 pictures, as calculate_psnr does."""

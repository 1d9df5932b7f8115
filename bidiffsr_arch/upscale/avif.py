"""Properties of AVIF files that Pillow ignores when it reads them."""

from pathlib import Path

from bidiffsr_arch.upscale.metadata import warn

HIGH_BIT_DEPTH = 0x40  # a bit in the third byte of the av1C box
# Values of ITU-T H.273 that are read correctly as sRGB: primaries of BT.709 or unspecified; similar transfer functions.
PRIMARIES, TRANSFERS = (1, 2), (1, 2, 6, 13)


def warn_about(path: Path) -> None:
    """Warn about more than 8 bits, and about colours that are not sRGB and defined without an ICC profile."""
    content = path.read_bytes()
    configuration, colours = content.find(b"av1C"), content.find(b"colrnclx")
    if configuration > 0 and content[configuration + 6] & HIGH_BIT_DEPTH:
        warn("its 10 or 12 bits per sample were reduced to 8")
    primaries, transfer = content[colours + 8 : colours + 12][1::2] if colours > 0 else b"\1\1"
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        warn(f"its colours (primaries {primaries}, transfer {transfer} of ITU-T H.273) were read as sRGB")

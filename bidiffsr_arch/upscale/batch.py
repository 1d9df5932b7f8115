"""Upscale many images in sequence, with one progress bar; an error in one image does not stop the others."""

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bidiffsr_arch.errors import InputError, first_line, printable
from bidiffsr_arch.upscale.metadata import MetadataWarning
from bidiffsr_arch.upscale.photo import check_writable, read_photo, write_photo
from bidiffsr_arch.upscale.plan import Job
from bidiffsr_arch.upscale.upscaler import Upscaler


def upscale_all(upscaler: Upscaler, jobs: list[Job], quiet: bool) -> list[InputError]:
    """Upscale one image after the other, with a progress bar over images, steps and tiles.

    Returns:
        An error for each image that could not be upscaled; each names its file.
    """
    calls = [upscaler.calls(job.height, job.width) for job in jobs]
    failures = []
    with tqdm(total=sum(calls), unit="tile", disable=quiet or None, dynamic_ncols=True) as bar:
        for number, (job, count) in enumerate(zip(jobs, calls, strict=True), 1):
            bar.set_description(f"{number}/{len(jobs)} {printable(job.source.name)}")
            before = bar.n
            try:
                with warnings_about(job.source):
                    upscale_one(upscaler, job, on_tile(bar, count // upscaler.timesteps, upscaler.timesteps))
            except Exception as error:  # decoders, devices and disks may raise anything
                failures.append(naming(job.source, error))
                bar.total = (bar.total or 0) - count + int(bar.n - before)
    return failures


def upscale_one(upscaler: Upscaler, job: Job, on_tile: Callable[[], None]) -> None:
    """Read, upscale and write one image."""
    photo = read_photo(job.source)
    check_writable(job.target, photo)
    write_photo(job.target, photo.resized(upscaler(photo.pixels, on_tile)))


@contextmanager
def warnings_about(source: Path) -> Iterator[None]:
    """Print each warning in one line that names the image."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MetadataWarning)
        yield
    for warning in caught:
        tqdm.write(printable(f"{source}: {warning.message}"), file=sys.stderr)


def naming(source: Path, error: Exception) -> InputError:
    """An error in one line that names the image."""
    message = str(error) if isinstance(error, InputError) else f"cannot be upscaled: {first_line(error)}"
    return InputError(message if source.name in message else f"{source}: {message}")


def on_tile(bar: tqdm, tiles: int, steps: int) -> Callable[[], None]:
    """A function that advances the bar by one tile, for an image with `tiles` tiles per step."""
    count = itertools.count()

    def move() -> None:
        bar.set_postfix_str(f"step {next(count) // tiles + 1}/{steps}", refresh=False)
        bar.update()

    return move

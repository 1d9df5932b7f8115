"""Upscale a visitor's images one after the other, as `basicsr upscale` does, within limits and until cancelled."""

import itertools
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from bidiffsr_arch.errors import InputError, raise_all
from bidiffsr_arch.upscale import Upscaler
from bidiffsr_arch.upscale.batch import naming, upscale_one
from bidiffsr_arch.upscale.metadata import MetadataWarning
from bidiffsr_arch.upscale.plan import Job, plan
from bidiffsr_arch.web import Limits
from bidiffsr_arch.web.preview import write_previews

COMPUTING = Lock()  # for warnings.catch_warnings, which changes the state of all threads


class Cancelled(Exception):
    """The visitor cancelled the request, or left."""


@dataclass(frozen=True)
class Result:
    """An upscaled image.

    Attributes:
        file: the result as `basicsr upscale` writes it, with the image's name.
        before: the image upsampled by bicubic interpolation, for the page.
        after: the result, for the page.
        notes: warnings about metadata that was not kept.
    """

    file: Path
    before: Path
    after: Path
    notes: tuple[str, ...] = ()


def upscale_images(
    upscaler: Upscaler,
    images: Sequence[Path],
    folder: Path,
    limits: Limits,
    cancelled: Event,
    report: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Iterator[Result | InputError]:
    """Upscale images; yields a result or an error for each.

    Args:
        folder: the visitor's folder; each result gets a new subfolder, so that equal names do not collide.
        cancelled: may be set by another thread; the computation ends after the current tile.
        report: called after each tile with the number of finished tiles, the total, and the image's name.
    Raises:
        InputError: there are no images, or their number or the computation exceeds the limits.
        Cancelled: `cancelled` was set.
    """
    if not 0 < len(images) <= limits.images:
        raise InputError(f"expected 1 to {limits.images} images per request, got {len(images)}")
    jobs: list[Job | InputError] = [_plan(image, folder, upscaler.scale, limits) for image in images]
    total = sum(upscaler.calls(job.height, job.width) for job in jobs if isinstance(job, Job))
    deadline, count = time.monotonic() + limits.seconds, itertools.count(1)

    for job in jobs:
        if isinstance(job, InputError):
            yield job
            continue
        name = job.source.name

        def on_tile(name: str = name) -> None:
            report(next(count), total, name)
            _check(cancelled, deadline, limits)

        _check(cancelled, deadline, limits)
        yield _upscale(upscaler, job, on_tile)


class OutOfTime(InputError):
    """The request took longer than the limit."""


def _check(cancelled: Event, deadline: float, limits: Limits) -> None:
    if cancelled.is_set():
        raise Cancelled
    if time.monotonic() > deadline:
        raise OutOfTime(f"expected a request of at most {limits.seconds:g} s, stopped there; send smaller images")


def _plan(image: Path, folder: Path, scale: int, limits: Limits) -> Job | InputError:
    """The job of an image, or an error if the image is refused; only the image's header is read."""
    target = folder / secrets.token_hex(8)
    try:
        planned = plan([str(image)], str(target))
        planned.refuse_too_large(scale)
        raise_all(planned.failures)
        (job,) = planned.jobs
        megapixels = job.height * job.width * scale**2 / 1e6
        if megapixels > limits.megapixels:
            raise InputError(
                f"{image.name}: expected a result of at most {limits.megapixels:g} megapixels, got "
                f"{job.width * scale}x{job.height * scale} ({megapixels:.3g}); choose a smaller image or scale"
            )
        return job
    except InputError as error:
        return _without_folders(error, target, image.parent)


def _upscale(upscaler: Upscaler, job: Job, on_tile: Callable[[], None]) -> Result | InputError:
    try:
        with COMPUTING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MetadataWarning)
            upscale_one(upscaler, job, on_tile)
            previews = write_previews(job.source, job.target, job.target.parent / "previews")
    except (Cancelled, OutOfTime):
        raise
    except Exception as error:  # decoders, devices and disks may raise anything
        return _without_folders(naming(job.source, error), job.target.parent, job.source.parent)
    notes = dict.fromkeys(str(entry.message) for entry in caught if entry.category is MetadataWarning)
    return Result(job.target, *previews, tuple(f"{job.source.name}: {note}" for note in notes))


def _without_folders(error: InputError, *folders: Path) -> InputError:
    """The error without paths of the server's folders, which a visitor must not see."""
    message = str(error)
    for folder in folders:
        message = message.replace(f"{folder}/", "").replace(str(folder), folder.name)
    return InputError(message)

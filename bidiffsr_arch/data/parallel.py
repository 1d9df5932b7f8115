"""One job for each image, in several processes, with a progress bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm

from bidiffsr_arch.errors import InputError, raise_all


def in_processes(
    job: Callable[..., Any],
    arguments: Sequence[tuple],
    workers: int,
    description: str,
    failures: Sequence[InputError] = (),
) -> list[Any]:
    """Call ``job(*arguments[i])`` for all i.

    Args:
        job: a function that can be pickled.
        workers: processes at the same time.
        description: what stands before the bar.
        failures: what is known to be wrong with other images.
    Returns:
        What the calls returned, as they ended.
    Raises:
        InputError: `failures`, and those that calls raised, after all others are done.
        Whatever else a call raises; those that have not begun are left out.
    """
    results, failed = [], list(failures)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(job, *each) for each in arguments]
        try:
            for done in tqdm(as_completed(jobs), total=len(jobs), desc=description, unit="image"):
                if isinstance(error := done.exception(), InputError):
                    failed.append(error)
                else:
                    results.append(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    raise_all(failed)
    return results

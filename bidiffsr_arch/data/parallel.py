"""Run one job per image in several processes, with a progress bar."""

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
        workers: number of processes.
        description: label of the progress bar.
        failures: known errors of other images.
    Returns:
        Results in the order in which the calls ended.
    Raises:
        InputError: `workers` is below 1 (then nothing is called); or `failures` and the InputErrors of calls, after all
            other calls have ended.
        Exception: any other error of a call, after which no further calls are started.
    """
    if workers < 1:
        raise InputError(f"expected --workers of at least 1, got {workers}")
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

"""One job for each picture, in several processes, with a progress bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm


def in_processes(job: Callable[..., Any], arguments: Sequence[tuple], workers: int, description: str) -> list[Any]:
    """Call ``job(*arguments[i])`` for all i.

    Args:
        job: a function that can be pickled.
        workers: processes at the same time.
        description: what stands before the bar.
    Returns:
        What the calls returned, as they ended.
    Raises:
        Whatever a call raises; those that have not begun are left out.
    """
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(job, *each) for each in arguments]
        try:
            bar = tqdm(as_completed(jobs), total=len(jobs), desc=description, unit="picture")
            return [done.result() for done in bar]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

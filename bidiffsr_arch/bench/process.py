"""A separate process for a measurement."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bidiffsr_arch.plugins import import_plugins, named_plugins


def new_process() -> ProcessPoolExecutor:
    """An executor with one new process, which imports the plugins that were named in this one."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=import_plugins, initargs=(named_plugins(), {})
    )

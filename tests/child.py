"""Run Python code in a new process, in which nothing has been imported."""

import os
import subprocess
import sys
from pathlib import Path

BLOCK = """
import sys
from importlib.machinery import PathFinder
stock = PathFinder.find_spec
PathFinder.find_spec = lambda name, *further: None if name.partition(".")[0] in {names!r} else stock(name, *further)
"""


def run_code(
    code: str, *arguments: object, blocked: tuple[str, ...] = (), folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code with `sys.argv[1:] = arguments`, as if the `blocked` packages were not installed.

    Threads are as many as the variable OMP_NUM_THREADS among `environment` says, else one.
    """
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(names=blocked) + code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )

"""Run Python code in a new process, in which nothing has been imported, or some slow packages only."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

BLOCK = """
import sys
from importlib.machinery import PathFinder
stock = PathFinder.find_spec
PathFinder.find_spec = lambda name, *further: None if name.partition(".")[0] in {names!r} else stock(name, *further)
"""
# Packages that `import basicsr` imports, which take most of its time.
OF_BASICSR = ("torch", "torch._dynamo", "scipy.stats")
TIMEOUT = 600


def run_code(
    code: str,
    *arguments: object,
    blocked: tuple[str, ...] = (),
    folder: Path | None = None,
    imported: tuple[str, ...] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run code with `sys.argv[1:] = arguments`, as if the `blocked` packages were not installed.

    Threads are as many as the variable OMP_NUM_THREADS among `environment` says, else one. With `imported`, these
    modules have been imported before, in a process that is forked: importing torch alone takes seconds.
    """
    code = BLOCK.format(names=blocked) + code
    words = [*map(str, arguments)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    if imported:
        return _run_forked(imported, code, words, str(folder or os.getcwd()), variables)
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


# Reads one task a line, and writes the exit status of each. A child runs the task's code as its main program.
SERVER = """
import importlib, json, os, runpy, signal, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
for line in sys.stdin:
    code, words, folder, variables = json.loads(line)
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(int(sys.argv[1]))
for target, source in enumerate((os.devnull, f"{code}.out", f"{code}.err")):
    os.dup2(os.open(source, os.O_RDWR | os.O_CREAT), target)
os.chdir(folder)
os.environ.clear()
os.environ.update(variables)
sys.argv = [code, *words]
sys.path[:1] = ["", *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
runpy.run_path(code, run_name="__main__")
"""


@cache
def _server(modules: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process that has imported modules and forks itself for each task; it ends with this process."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, str(TIMEOUT), *modules],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _run_forked(
    modules: tuple[str, ...], code: str, words: list[str], folder: str, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    server = _server(modules)
    assert server.stdin and server.stdout
    with TemporaryDirectory() as temporary:
        main = Path(temporary, "main.py")
        main.write_text(code)
        print(json.dumps([str(main), words, folder, variables]), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        outputs = [Path(f"{main}.{stream}").read_text() for stream in ("out", "err")]
    return subprocess.CompletedProcess([str(main), *words], status, *outputs)

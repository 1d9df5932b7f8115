"""BasicSR is built with the installed torch, on every supported Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from child import run_code

from bidiffsr_arch.compat import install

# As BasicSR's setup.py reads its version.
SETUP = """
def version():
    exec("version = '1'")
    return locals()["version"]

print(version())
"""
EXPLICIT = """
given, both = {}, ({}, {})
exec("a = 1", given)
exec("b = 2", *both)
assert given["a"] == 1 and both[1] == {"b": 2} and "b" not in both[0] and "a" not in globals()
exec("c = 3")
assert c == 3
if sys.version_info >= (3, 13):
    exec("d = 4", globals=given)
    assert given["d"] == 4
"""


def test_the_shim_lets_exec_change_local_variables():
    """Python below 3.13 does so by itself."""
    done = run_code(SETUP, PYTHONPATH=str(install.SHIM))
    assert done.stdout == "1\n", done.stderr


def test_the_shim_leaves_explicit_namespaces_alone():
    code = f"assert exec.__module__ == 'sitecustomize'\n{EXPLICIT}"
    done = run_code(code, PYTHONPATH=str(install.SHIM))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("statuses", "expected"), [([0, 0], 0), ([0, 3], 3), ([2], 2)])
@pytest.mark.parametrize("path", ["", "mine"])
def test_pip_installs_build_tools_and_then_basicsr_with_the_shim(monkeypatch, statuses, expected, path):
    calls, left = [], iter(statuses)

    def run(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        calls.append((command, env))
        return subprocess.CompletedProcess(command, next(left))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", path)
    assert install.main(["--constraint", "constraints.txt"]) == expected
    pip = [sys.executable, "-m", "pip", "install", "--constraint", "constraints.txt"]
    assert [command for command, _ in calls] == [
        [*pip, "setuptools", "wheel", "cython", "numpy"],
        [*pip, "--no-build-isolation", "basicsr>=1.4.2,<1.5"],
    ][: len(statuses)]
    assert calls[0][1] is None
    if len(calls) == 2:
        first, *others = calls[1][1]["PYTHONPATH"].split(os.pathsep)
        assert Path(first, "sitecustomize.py").is_file() and others == ([path] if path else [])
        assert calls[1][1] == {**os.environ, "PYTHONPATH": calls[1][1]["PYTHONPATH"]}

"""`python -m bidiffsr_arch.compat.install`: install BasicSR with the installed torch, on any supported Python.

BasicSR has only a source package. In an isolated build it would download a second torch, and its setup.py does not run
on Python 3.13 and later (`basicsr_build` says why). Arguments are passed to `pip install`, such as
``--constraint constraints.txt``.
"""

import os
import subprocess
import sys
from pathlib import Path

BUILD_TOOLS = ("setuptools", "wheel", "cython", "numpy")
BASICSR = "basicsr>=1.4.2,<1.5"
SHIM = Path(__file__).parent / "basicsr_build"


def main(arguments: list[str]) -> int:
    """Install the build dependencies of BasicSR, then BasicSR.

    Returns:
        The exit status of pip.
    """
    pip = [sys.executable, "-m", "pip", "install", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(SHIM), os.environ.get("PYTHONPATH"))))}
    tools = subprocess.run([*pip, *BUILD_TOOLS]).returncode
    return tools or subprocess.run([*pip, "--no-build-isolation", BASICSR], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Contents of the wheel, and the command and option files of an editable install."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from importlib.resources import files
from itertools import chain
from pathlib import Path

import pytest

import bidiffsr_arch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the checkout, built from a copy (setuptools leaves a build folder), without any download."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("bidiffsr_arch", "options"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*command, "--wheel-dir", output, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = output.iterdir()
    with zipfile.ZipFile(file) as archive:
        yield archive


def option_files() -> set[str]:
    return {file.relative_to(ROOT / "options").as_posix() for file in (ROOT / "options").rglob("*.yml")}


def test_the_wheel_contains_exactly_the_files_of_the_package(wheel):
    found = (file for file in (ROOT / "bidiffsr_arch").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    package = {file.relative_to(ROOT).as_posix() for file in found}
    options = {f"bidiffsr_arch/options/{name}" for name in (*option_files(), "__init__.py")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package | options


def test_the_wheels_metadata(wheel):
    def text(name: str) -> str:
        return wheel.read(f"bidiffsr_arch-{bidiffsr_arch.__version__}.dist-info/{name}").decode()

    for command in ("basicsr", "bidiffsr"):
        assert f"\n{command} = bidiffsr_arch.cli:main" in text("entry_points.txt")
    assert "[basicsr.plugins]\nbidiffsr_arch = bidiffsr_arch" in text("entry_points.txt")
    assert text("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    metadata = text("METADATA")
    assert "License-Expression: Apache-2.0" in metadata
    python = next(line for line in metadata.splitlines() if line.startswith("Requires-Python"))
    assert python == "Requires-Python: >=3.10"
    assert 'Requires-Dist: basicsr<1.5,>=1.4.2; python_version < "3.13"' in metadata


def test_option_files_are_found_from_an_unpacked_wheel(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "from bidiffsr_arch.config.shipped import shipped, __file__; print(__file__, *shipped(), sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    file, *names = run.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert {f"{name}.yml" for name in names} == option_files()


def test_option_files_are_found_in_the_checkout():
    folder = files("bidiffsr_arch.options")
    assert all(folder.joinpath(name).is_file() for name in option_files()) and option_files()


def test_the_command_and_the_plugin_are_installed():
    (command,) = (point for point in entry_points(group="console_scripts") if point.name == "basicsr")
    assert command.load().__module__ == "bidiffsr_arch.cli"
    (plugin,) = (point for point in entry_points(group="basicsr.plugins") if point.name == "bidiffsr_arch")
    assert plugin.load() is bidiffsr_arch


def test_every_requirement_is_pinned_for_each_python():
    tomllib = pytest.importorskip("tomllib")
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + list(chain(*project["optional-dependencies"].values()))
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = [Requirement(line) for line in lines]
    for requirement in map(Requirement, wanted):
        for python in ("3.10", "3.11", "3.12", "3.13", "3.14"):
            pinned = [
                next(iter(pin.specifier)).version
                for pin in pins
                if pin.name.lower() == requirement.name.lower()
                and (pin.marker is None or pin.marker.evaluate({"python_version": python}))
            ]
            assert len(pinned) == 1, f"{requirement.name} on Python {python}: {pinned}"
            assert requirement.specifier.contains(pinned[0]), f"{requirement} does not admit {pinned[0]}"

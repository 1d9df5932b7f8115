"""What wheel and sdist hold, that the wheel works in a new environment, and what an editable install finds."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import entry_points
from importlib.resources import files
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest

import bidiffsr_arch

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "bidiffsr_arch", "docs", "options", "tests")
FILES = ("*.toml", "*.cfg", "*.md", "*.cff", "*.txt", "*.yml", "MANIFEST.in", "setup.py", "LICENSE", "Makefile")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, since setuptools leaves a build folder."""
    copy = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in chain(*map(ROOT.glob, FILES)):
        shutil.copy(file, copy)
    return copy


def built(hook: str, source: Path, output: Path) -> Path:
    """What a hook of setuptools' build backend writes, without any download."""
    output.mkdir()
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True, cwd=source)
    assert done.returncode == 0, done.stderr
    return output / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel_file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("build_wheel", source, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> zipfile.ZipFile:
    with zipfile.ZipFile(wheel_file) as archive:
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


def metadata(source: Path, output: Path) -> str:
    return (built("prepare_metadata_for_build_wheel", source, output) / "METADATA").read_text()


def test_the_readmes_links_are_absolute_where_the_address_is_known(source, tmp_path):
    image, page = "(docs/images/strip_x4.png)", "(docs/small.md)"
    text = metadata(source, tmp_path / "without")
    assert f"![LR, bicubic, result and HR of two photographs]{image}" in text and page in text
    assert "Description-Content-Type: text/markdown" in text
    copy = shutil.copytree(source, tmp_path / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    project = copy / "pyproject.toml"
    address = "https://example.org/me/it"
    project.write_text(project.read_text().replace('# Repository = "https://..."', f'Repository = "{address}"'))
    text = metadata(copy, tmp_path / "with")
    assert f"Project-URL: Repository, {address}" in text
    assert image not in text and page not in text
    assert f"({address}/raw/HEAD/docs/images/strip_x4.png)" in text and f"({address}/blob/HEAD/docs/small.md)" in text
    assert "/docs/install.md)" in text and "(https://arxiv.org/abs/2406.05723)" in text


def test_the_sdist_holds_what_the_wheel_and_the_tests_need(source, wheel, tmp_path):
    with tarfile.open(built("build_sdist", source, tmp_path / "dist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    tests = {file.relative_to(source).as_posix() for file in (source / "tests").rglob("*") if file.is_file()}
    assert tests | {"Makefile", "constraints.txt", "mkdocs.yml", "docs/index.md", "LICENSE", "CITATION.cff"} <= names
    (unpacked,) = tmp_path.glob("bidiffsr_arch-*")
    with zipfile.ZipFile(built("build_wheel", unpacked, tmp_path / "wheel")) as again:
        assert set(again.namelist()) == set(wheel.namelist())


def test_the_wheel_works_in_a_new_environment(wheel_file, tmp_path):
    """With the requirements of this one, run from another folder."""
    venv.create(tmp_path / "env", symlinks=True)
    bin, (site,) = tmp_path / "env" / "bin", (tmp_path / "env").glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", bin / "python", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", wheel_file], check=True)
    (site / "requirements.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    cv2.imwrite(str(tmp_path / "photo.png"), np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))

    def run(*words: str | Path) -> str:
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    home = run(bin / "python", "-c", "import bidiffsr_arch; print(bidiffsr_arch.__file__)").strip()
    assert Path(home).is_relative_to(site)
    assert run(bin / "basicsr", "--version") == f"bidiffsr_arch {bidiffsr_arch.__version__}\n"
    assert "train_BIDiffSR_x4" in run(bin / "basicsr", "options")
    run(bin / "basicsr", "upscale", "photo.png", "-o", "large", "--quiet")
    assert cv2.imread(str(tmp_path / "large" / "photo.png")).shape == (16, 16, 3)


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


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_installs_for_the_demo_only_what_it_needs(source):
    def commands(target: str) -> str:
        words = ["make", "--dry-run", target, f"PYTHON={sys.executable}"]
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=source).stdout

    demo, lint, web = map(commands, ("demo", "lint", "test-web"))
    assert re.findall(r"'\.\[(.*)\]'", demo) == ["fast"]
    assert re.findall(r"'\.\[(.*)\]'", lint) == ["fast", "plot,test"]
    assert re.findall(r"'\.\[(.*)\]' *(.*)", web) == [("fast", ""), ("plot,test,web", "playwright")]
    assert "compileall" not in demo and "compileall" in lint
    installs = [line for line in (demo + lint).splitlines() if re.search(r"-m (pip |\S+\.)install ", line)]
    assert len(installs) == 3 + 4 and all("--no-compile" in line and "constraints.txt" in line for line in installs)


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

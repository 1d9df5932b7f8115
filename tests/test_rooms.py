"""Rooms import in one direction, so that each part can be read and used without those that build on it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bidiffsr_arch

PACKAGE = Path(bidiffsr_arch.__file__).parent
# From left to right; rooms of one entry do not import each other. docs/architecture.md says what lives in each.
ORDER = [
    "cli",
    "web",
    "bench plots diffusers_pipeline spandrel",
    "upscale training",
    "export pretrained",
    "compat",
    "networks",
    "packed",
    "diffusion metrics weights",
    "data",
    "archs",
    "binary",
    "parameters",
    "description",
    "config",
    "hub plugins threads",
    "files",
    "errors",
]
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms.split()}
# What the package's own import runs, before any room.
START = {"__init__", "__main__", "import_hooks", "moved", "registration"}
# The one import against the order, on first use: networks save themselves by `save_pretrained`.
AGAINST_THE_ORDER = {("archs/pretrained.py", "bidiffsr_arch.pretrained")}
# Rooms that import BasicSR when they are imported, and those that import it only within functions that need it.
NEED_BASICSR = {"training", "compat"}
ASK_FOR_BASICSR = NEED_BASICSR | {"cli", "networks", "registration"}
# Packages that are optional or slow to import -> the files that import them; below, those that do so outside functions.
IMPORTERS = {
    "diffusers": {"diffusers_pipeline.py", "diffusion/schedulers.py"},
    "fastapi": {"web/server.py"},
    "gradio": {"web/page.py", "web/server.py"},
    "huggingface_hub": {"hub.py"},
    "onnx": {"export.py"},
    "onnxruntime": {"export.py"},
    "pyiqa": {"metrics/iqa.py"},
    "spandrel": {"spandrel.py"},
    "starlette": {"web/guard.py", "web/server.py"},
    "uvicorn": {"web/server.py"},
}
AT_IMPORT = {
    "diffusers": {"diffusers_pipeline.py"},
    "gradio": {"web/page.py"},
    "spandrel": {"spandrel.py"},
    "starlette": {"web/guard.py"},
}


def imports(file: Path, at_import: bool = False) -> Iterator[str]:
    """The full names of modules that a file imports, by statements or `import_module`; with `at_import`, only of those
    outside functions.

    Imports for a type checker alone are left out.
    """
    todo: list[ast.AST] = [ast.parse(file.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (name.value for name in node.args[:1] if isinstance(name, ast.Constant))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file} has a relative import"
            inner = PACKAGE.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                is_module = (inner / alias.name).is_dir() or (inner / f"{alias.name}.py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def room_of(module: str) -> str | None:
    """The room of a module of this package."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__" if package == PACKAGE.name else None


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_rooms_import_what_stands_to_their_right(file):
    place = file.relative_to(PACKAGE)
    room = place.parts[0].removesuffix(".py")
    if room in START:
        return
    assert room in RANKS, f"{room} has no place in the order of rooms"
    for module in imports(file):
        other = room_of(module)
        if other is None or other == room or other in START or (str(place), module) in AGAINST_THE_ORDER:
            continue
        assert RANKS[room] < RANKS[other], f"{place} imports {module}: {other} does not stand to the right of {room}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_training_and_its_neighbours_need_basicsr(file):
    place = str(file.relative_to(PACKAGE))
    room = place.partition("/")[0].removesuffix(".py")
    for at_import, allowed in ((True, NEED_BASICSR), (False, ASK_FOR_BASICSR)):
        asks = any(module.partition(".")[0] == "basicsr" for module in imports(file, at_import))
        assert not asks or {room, place} & allowed, f"{place} imports BasicSR"


@pytest.mark.parametrize(("at_import", "expected"), [(False, IMPORTERS), (True, AT_IMPORT)])
def test_optional_packages_are_imported_where_they_are_used(at_import, expected):
    found = defaultdict(set)
    for file in FILES:
        for module in imports(file, at_import):
            if (package := module.partition(".")[0]) in IMPORTERS:
                found[package].add(str(file.relative_to(PACKAGE)))
    assert found == expected


def test_modules_import_each_other_without_cycles():
    names = {file: ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in FILES}
    modules = {name.removesuffix(".__init__"): file for file, name in names.items()}
    graph = {
        name: {module for module in imports(file, at_import=True) if module in modules and not name.startswith(module)}
        for name, file in modules.items()
    }
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a.b", ["a.b"]),
        ("from bidiffsr_arch import files, __version__", ["bidiffsr_arch.files", "bidiffsr_arch"]),
        ("def f():\n    from a import b", []),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import c", ["c"]),
        ("class A:\n    import b", ["b"]),
        ("import_module('a.b')\nimportlib.import_module(a)", ["a.b"]),
    ],
)
def test_imports_are_found(tmp_path, code, expected):
    (tmp_path / "module.py").write_text(code)
    assert list(imports(tmp_path / "module.py", at_import=True)) == expected

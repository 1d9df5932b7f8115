"""The package's rooms: imports go one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "bidiffsr_arch"
# From left to right; a room imports only from rooms to its right. Rooms in one entry do not import each other.
ORDER = (
    ("cli",),
    ("bench", "plots"),
    ("upscale", "training"),
    ("compat",),
    ("pretrained",),
    ("networks",),
    ("plugins",),
    ("packed",),
    ("diffusion", "metrics"),
    ("data",),
    ("archs",),
    ("binary",),
    ("description", "hub"),
    ("config",),
    ("files", "weights"),
    ("errors", "import_hooks", "threads"),
)
RANK = {room: place for place, rooms in enumerate(ORDER) for room in rooms}


def modules() -> list[Path]:
    return [file for file in sorted(ROOT.rglob("*.py")) if file.parent != ROOT or file.stem in RANK]


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, those within functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    own = room_of(file)
    for line, name in imported(file):
        if name.startswith("bidiffsr_arch.") and (other := name.split(".")[1]) in RANK and other != own:
            assert RANK[own] < RANK[other], f"{file}:{line}: {own} imports {other}"

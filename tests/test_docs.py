"""Checks of the documentation: snippets run; commands, options, files and links exist."""

import argparse
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from PIL import Image

from bidiffsr_arch import __version__
from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import COMMANDS, build_parser
from bidiffsr_arch.config.tables import editor_schema
from bidiffsr_arch.config.yaml import parse
from bidiffsr_arch.description import describe, save_float

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
OUR_COMMAND = re.compile(r"(?:^|\s)(?:\.venv/bin/)?(?:basicsr|-m bidiffsr_arch(?:\.cli)?)\s+(?P<rest>.*)")

# Packages of extras that snippets use -> the marker of the extra's tests.
EXTRAS = {"onnxruntime": "export", "spandrel": "hub"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fences(language: str) -> list[Any]:
    """Fenced blocks of all pages, each under the name of its page and line, and marked with the extra that it uses."""
    return [
        pytest.param(
            match[2],
            id=f"{page.name}:{text_of(page)[: match.start()].count(chr(10)) + 2}",
            marks=[getattr(pytest.mark, extra) for package, extra in EXTRAS.items() if package in match[2]],
        )
        for page in PAGES
        for match in FENCE.finditer(text_of(page))
        if match[1] == language
    ]


def command_lines() -> Iterator[tuple[str, str]]:
    """Command lines in shell blocks and in indented blocks, continuation lines joined: (page, line)."""
    for page in PAGES:
        text = text_of(page)
        prose = FENCE.sub("", text)
        blocks = [match[2] for match in FENCE.finditer(text) if match[1] in ("bash", "sh")]
        for block in [*blocks, *INDENTED.findall(prose)]:
            for line in block.replace("\\\n", " ").splitlines():
                yield page.name, line.split(" # ")[0].strip()


OURS = [(page, match["rest"]) for page, line in command_lines() if (match := OUR_COMMAND.search(line))]
SPANS = [
    (page.name, match["rest"])
    for page in PAGES
    for span in SPAN.findall(FENCE.sub("", text_of(page)))
    if span.startswith("basicsr ") and (match := OUR_COMMAND.search(span))
]


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of the deepest subcommand that words name, and the words after it."""
    parser = build_parser(words[0])
    while True:
        subcommands = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if subcommands is None or not words or words[0] not in subcommands.choices:
            return parser, words
        parser, words = subcommands.choices[words[0]], words[1:]


@pytest.mark.parametrize(("page", "line"), OURS)
def test_command_lines_are_accepted(page, line):
    """Whole command lines parse, required arguments included; nothing is run."""
    words = shlex.split(line)
    if words[0].startswith("-"):  # --help, --version
        return
    assert words[0] in COMMANDS, f"{page}: {line}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "error", lambda self, message: pytest.fail(f"{page}: {line}: {message}"))
        build_parser(words[0]).parse_args(words)


@pytest.mark.parametrize(("page", "span"), SPANS)
def test_mentioned_commands_and_options_exist(page, span):
    words = span.split()
    if words[0].isupper() or words[0].startswith("-"):
        return
    assert words[0] in COMMANDS, f"{page}: {span}"
    parser, rest = parser_of(words)
    unknown = [word for word in rest if word.startswith("-") and word not in parser._option_string_actions]
    assert not unknown, f"{page}: `basicsr {span}`"


def test_make_targets_scripts_extras_and_option_files_exist():
    makefile, project = text_of(PROJECT / "Makefile"), text_of(PROJECT / "pyproject.toml")
    (tested,) = re.findall(r"^EXTRAS := (.*)$", makefile, re.MULTILINE)
    targets = {*re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE), *(f"test-{extra}" for extra in tested.split())}
    missing = []
    for page, line in command_lines():
        words = line.split()
        found = {
            "target": [word for word in words[1:] if words[0] == "make" and re.fullmatch(r"[a-z-]+", word)],
            "file": [w for w in words if w.startswith(("benchmarks/", "options/")) and w.endswith((".py", ".yml"))],
            "extra": re.findall(r"\[([a-z,]+)\]", line) if "pip install" in line else [],
        }
        missing += [(page, word) for word in found["target"] if word not in targets]
        missing += [(page, word) for word in found["file"] if not (PROJECT / word).is_file()]
        extras = [extra for group in found["extra"] for extra in group.split(",")]
        missing += [(page, extra) for extra in extras if not re.search(rf"^{extra} = \[", project, re.MULTILINE)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    broken = [link for link in LINK.findall(text_of(page)) if "://" not in link and not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("code", fences("python"))
def test_python_snippets_run(code, run_options, tiny_options, workplace, monkeypatch):
    """In a folder with photo.jpg, weights and an option file, with the variables that snippets use."""
    torch.manual_seed(0)
    network = BIDiffSRUNet(**tiny_options | dict(channel_mults=[1])).eval()  # exporting it takes a fourth of the time
    for package, extra in EXTRAS.items():
        if package in code:
            pytest.importorskip(package, reason=f"{package} is not installed: make test-{extra}")
    schedule = dict(n_timestep=100, num_inference_steps=2)
    options = dict(network_g={"type": "BIDiffSRUNet", **network.arguments}, scale=2, beta_schedule=schedule)
    save_float(network.state_dict(), Path("net_g.safetensors"), describe(options))
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save("photo.jpg")
    run_options["train"]["total_iter"] = 1
    run_options["val"]["metrics"] = None
    Path("options.yml").write_text(yaml.safe_dump(run_options))
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", "options.yml"])
    Path("snippet.py").write_text(code)
    names = dict(
        network=network,
        x_t=torch.rand(1, 3, 32, 32),
        condition=torch.rand(1, 3, 32, 32),
        time=torch.zeros(1),
        image=torch.rand(1, 3, 12, 12),
        pixels=np.zeros((12, 12, 3), np.uint8),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path("snippet.py", names)


@pytest.mark.parametrize("text", fences("yaml"))
def test_yaml_snippets_are_valid_options(text):
    """Indented snippets are data sets."""
    options = parse(dedent(text), "snippet")
    whole = {"datasets": options} if text.startswith(" ") else options
    errors = Draft202012Validator(editor_schema()).iter_errors({"model_type": "BIDiffSRModel"} | whole)
    assert [error.message for error in errors] == []


def test_every_fenced_block_is_checked():
    languages = {match[1] for page in PAGES for match in FENCE.finditer(text_of(page))}
    assert languages == {"bash", "bibtex", "python", "yaml"}


def test_the_readme_cites_the_paper_as_the_citation_file_does():
    (entry,) = [match[2] for match in FENCE.finditer(text_of(PROJECT / "README.md")) if match[1] == "bibtex"]
    cited = dict(re.findall(r"^ *(\w+) = \{(.*)\}", entry, re.MULTILINE))
    paper = yaml.safe_load(text_of(PROJECT / "CITATION.cff"))["preferred-citation"]
    assert (cited["title"], cited["year"]) == (paper["title"], str(paper["year"]))
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert cited["author"].split(" and ") == authors
    assert f"arXiv:{cited['eprint']}" in [identifier["value"] for identifier in paper["identifiers"]]


def test_every_page_is_in_the_index():
    index = text_of(PROJECT / "docs" / "index.md")
    pages = {page.name for page in (PROJECT / "docs").glob("*.md")} - {"index.md"}
    assert not {name for name in pages if f"({name})" not in index}


def test_every_page_is_in_the_sites_navigation():
    navigation = text_of(PROJECT / "mkdocs.yml").split("\nnav:\n")[1]
    pages = [page for folder in ("docs", "benchmarks") for page in (PROJECT / folder).glob("*.md")]
    assert not {page.name for page in pages if f" {page.relative_to(PROJECT)}\n" not in navigation}


def test_citation_names_the_version_and_the_changelog_what_is_unreleased():
    citation = yaml.safe_load(text_of(PROJECT / "CITATION.cff"))
    assert citation["version"] == __version__
    assert "\n## [Unreleased]\n" in text_of(PROJECT / "CHANGELOG.md")


def test_badges_and_installing_by_name_need_the_projects_own_address():
    if re.search(r"^Repository = ", text_of(PROJECT / "pyproject.toml"), re.MULTILINE):
        return
    assert not re.findall(r"!\[[^\]]*\]\(https?://[^)]*\)", text_of(PROJECT / "README.md"))
    sources = [*PAGES, *(PROJECT / "bidiffsr_arch").rglob("*.py")]
    assert not [str(file) for file in sources if re.search(r"pip install '?bidiffsr_arch", text_of(file))]


def test_forms_workflows_and_hooks_are_yaml():
    files = [*(PROJECT / ".github").rglob("*.yml"), PROJECT / ".pre-commit-config.yaml"]
    contents = {file.name: yaml.safe_load(text_of(file)) for file in files}
    assert len(files) >= 5 and all(isinstance(content, dict) for content in contents.values())
    hooks = [hook for repo in contents[".pre-commit-config.yaml"]["repos"] for hook in repo["hooks"]]
    assert all(hook["language"] == "system" for hook in hooks)
    forms = [content for content in contents.values() if "body" in content]
    assert all({"name", "description", "body"} <= form.keys() for form in forms) and len(forms) >= 2


PACKAGES = [".".join(file.parent.relative_to(PROJECT).parts) for file in PROJECT.glob("bidiffsr_arch/**/__init__.py")]


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_have_docstrings_and_all(name):
    package = import_module(name)
    assert package.__doc__ and package.__doc__.strip()
    assert isinstance(package.__all__, list) and package.__all__
    modules = {entry for entry in package.__all__ if not hasattr(package, entry)}  # not imported yet
    assert all(find_spec(f"{name}.{module}") for module in modules)

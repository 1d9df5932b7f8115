"""What pyproject.toml cannot declare: the README as package indexes show it, where relative links lead nowhere.

With a `Repository` among pyproject.toml's [project.urls], its links to files are absolute; without one, they stay.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
ADDRESS = re.compile(r'^Repository *= *"(.+?)/?"', re.MULTILINE)
LINK = re.compile(r"(?P<image>!?)(?P<text>\[[^\]]*\])\((?P<file>(?![a-z]+:|#)[^)\s]+)\)")


def description() -> str:
    """README.md, with absolute links if the repository's address is known."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = ADDRESS.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        return readme

    def absolute(link: re.Match) -> str:
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}{link['text']}({found[1]}/{kind}/HEAD/{link['file']})"

    return LINK.sub(absolute, readme)


setup(long_description=description(), long_description_content_type="text/markdown")

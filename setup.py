"""Which packages there are: all that are found, and the folder of option files. The rest stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["bidiffsr_arch", "bidiffsr_arch.*"]), "bidiffsr_arch.options"])

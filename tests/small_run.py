"""Run the command on the small option file of `run_options`, and read what it logged."""

import logging
import re
from pathlib import Path
from typing import Any

import yaml

from bidiffsr_arch.cli import main


def basicsr(command: str, options: dict[str, Any], *arguments: str) -> int:
    """Run the command in this process, with a new logger, as in a new process."""
    from basicsr.utils import logger

    logger.initialized_logger.clear()
    logging.getLogger("basicsr").handlers.clear()
    Path("options.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    return main([command, "-opt", "options.yml", *arguments])


def log_of(folder: str) -> str:
    return max(Path(folder).glob("*.log"), key=lambda path: path.stat().st_mtime).read_text()


def losses(log: str) -> list[str]:
    return re.findall(r"l_pix: (\S+)", log)

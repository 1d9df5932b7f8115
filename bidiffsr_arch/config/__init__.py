"""Options, each declared once: its name, type, bounds, default and description.

- `yaml`: option files as plain data, read safely, with `base:` and overrides; `shipped`: those of this package.
- `struct`, `kinds`, `words`: what a block of options is, what a value may be, and how both are told in an error.
- `diffusion`, `data`, `training`, `file`: the blocks, and the whole file.
- `signature`: blocks that are arguments of somebody else's constructor.
- `command_line`: BasicSR's arguments; `tables`: option tables for the documentation, JSON Schema for editors.
"""

__all__ = [
    "command_line", "data", "diffusion", "file", "kinds", "shipped", "signature", "struct", "tables", "training",
    "words", "yaml",
]  # fmt: skip

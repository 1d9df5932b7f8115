"""Options, each declared once with name, type, bounds, default and description.

- `yaml`: option files as plain data, read safely, with `base:` and overrides; `shipped`: the files of this package.
- `struct`, `kinds`, `words`: the base class of blocks, types of values, and their description in words.
- `diffusion`, `data`, `training`, `file`: the blocks, and the whole file.
- `qualities`: sets of parameters of a packed file.
- `signature`: checks of blocks that are arguments of other packages' constructors.
- `command_line`: BasicSR's arguments; `tables`: option tables for the documentation and JSON Schema for editors.
"""

__all__ = [
    "command_line", "data", "diffusion", "file", "kinds", "qualities", "shipped", "signature", "struct",
    "tables", "training", "words", "yaml",
]  # fmt: skip

"""Sets of parameters of a packed file; without pydantic, because arguments of commands need it."""

QUALITIES = {
    "fidelity": "closest to the true image, pixel by pixel",
    "perceptual": "sharper, at some cost of fidelity",
}
"""Sets of parameters that a packed file may contain, and their purpose. Every file has the first one."""
FIRST = next(iter(QUALITIES))

"""The networks that the page offers: those of the package, and files from the command line."""

from collections.abc import Iterable
from pathlib import Path

from bidiffsr_arch.errors import InputError, choose
from bidiffsr_arch.networks import Weights, load_weights, qualities
from bidiffsr_arch.upscale import Upscaler
from bidiffsr_arch.weights import all_shipped_weights


class Models:
    """Loaded networks by name, one for each set of parameters in a file. A visitor selects one of the names, and cannot
    name files.

    Args:
        files: as `load_weights` takes them; they come before the package's own networks.
        device: see `Upscaler`.
    Raises:
        InputError: a file is wrong, two have the same name, or there is no such device.
    """

    def __init__(self, files: Iterable[str] = (), device: str = "auto") -> None:
        self.device = device
        self.weights: dict[str, Weights] = {}
        sources: list[str | Path] = [*files, *all_shipped_weights()]
        for file in sources:
            sets = qualities(file)
            for quality in sets:
                name = Path(file).stem if len(sets) == 1 else f"{Path(file).stem} ({quality})"
                if name in self.weights:
                    raise InputError(f"expected weights of different names, got {name} twice; rename one")
                self.weights[name] = load_weights(file, quality=quality)
        self.steps = {name: self.upscaler(name).timesteps for name in self.weights}

    def scales(self) -> list[int]:
        """The scales on offer, in increasing order."""
        return sorted({weights.scale for weights in self.weights.values()})

    def names(self, scale: int) -> list[str]:
        """Names of the networks that upscale by `scale`."""
        return [name for name, weights in self.weights.items() if weights.scale == scale]

    def upscaler(self, name: str, steps: int | None = None, seed: int = 0) -> Upscaler:
        """An upscaler with one of the networks.

        Raises:
            InputError: there is no such name, or steps or seed are out of range.
        """
        return Upscaler(choose("weights", name, self.weights), device=self.device, steps=steps, seed=seed)

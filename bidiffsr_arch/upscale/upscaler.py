"""A trained network as a function from an image to a larger one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.diffusion.images import is_finite, upsample
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, is_direct, load_weights
from bidiffsr_arch.pretrained import load_pretrained
from bidiffsr_arch.upscale import AUTO, OVERLAP
from bidiffsr_arch.upscale.alpha import fill_hidden
from bidiffsr_arch.upscale.direct import DirectNetwork
from bidiffsr_arch.upscale.photo import from_pillow, to_pillow
from bidiffsr_arch.upscale.tiles import TiledNetwork
from bidiffsr_arch.weights import shipped_weights

AnyImage = TypeVar("AnyImage", np.ndarray, Image.Image)

CPU_OUT_OF_MEMORY = "can't allocate memory"  # torch has an exception of its own for it on GPUs only
LAYOUTS = "(H, W), (H, W, 2), (H, W, 3) or (H, W, 4)"


class Upscaler:
    """Upscales images of any size.

    The same weights, image, seed, steps and tiles give the same result, independent of earlier calls.

    Args:
        weights: what `load_weights` returns.
        device: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        sampler: any scheduler of diffusers, with or without "Scheduler"; that of the weights' options if None.
        steps: sampling steps; those of the weights' options if None. A network without diffusion has neither sampler
            nor steps, and no noise.
        seed: seed of the noise, 0 or more.
        tile: largest side of a tile in result pixels; ``auto`` for that of the weights (`Weights.tile`), None for the
            whole image at once. The network's memory grows with its square.
        overlap: overlap of neighbouring tiles in result pixels.
    Raises:
        InputError: an argument is wrong; the message names it.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "auto",
        sampler: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        tile: int | str | None = AUTO,
        overlap: int = OVERLAP,
    ) -> None:
        if not 0 <= seed < 2**63:
            raise InputError(f"expected a seed of 0 or more, got {seed}")
        size = weights.tile if tile == AUTO else tile
        if isinstance(size, str):
            raise InputError(f"expected tile to be a number of pixels, {AUTO!r} or None, got {tile!r}")
        self.scale, self.steps = weights.scale, steps
        self.seed: int | torch.Generator = seed
        self.device = _device(device)
        network = weights.network.to(self.device)
        self.network: TiledNetwork | DirectNetwork
        self.super_resolution: SuperResolution | None = None
        if weights.is_direct:
            if sampler is not None or steps is not None:
                given = f"steps {steps}" if sampler is None else f"sampler {sampler}"
                raise InputError(f"expected no sampler and no steps for a network without diffusion, got {given}")
            self.timesteps = 1
            self.network = DirectNetwork(network, self.scale, size, overlap, weights.multiple)
        else:
            if is_direct(network):
                name = type(network).__name__
                raise InputError(f"expected a network of (x_t, condition, time) for beta_schedule, got {name}")
            options = DiffusionOptions.part_of(weights.options)
            self.super_resolution = SuperResolution(
                options if sampler is None else options.sampled_by(scheduler_type=sampler)
            )
            self.timesteps = len(self.super_resolution.diffusion.sampler(steps).timesteps)
            self.network = TiledNetwork(network, size, overlap, weights.multiple)
        self.calls(1, 1)

    @classmethod
    def from_file(
        cls,
        weights: str | Path,
        options: str | Path | None = None,
        *,
        packed: bool | None = None,
        quality: str | None = None,
        **settings: Any,
    ) -> "Upscaler":
        """An upscaler from a file of weights.

        Args:
            weights: a ``.pth`` of BasicSR's trainer, or a ``.safetensors`` of `basicsr pack`.
            options: the option file with which a ``.pth`` was trained; if None, the one that training stored beside it.
            packed: use packed inference (True), float (False), or what the file is for (None).
            quality: which set of parameters of a packed file, ``fidelity`` or ``perceptual``; its first if None.
            settings: `device`, `sampler`, `steps`, `seed`, `tile`, `overlap`, see `Upscaler`.
        Raises:
            InputError: the file or an option is wrong; the message is one line.
        """
        return cls(load_weights(weights, options, packed, quality), **settings)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        packed: bool | None = None,
        quality: str | None = None,
        **settings: Any,
    ) -> "Upscaler":
        """An upscaler from a folder in the Hub's layout, or from the Hugging Face Hub.

        Args:
            name_or_folder: a folder that ``save_pretrained`` wrote, ``OWNER/NAME`` or ``hf://OWNER/NAME``.
            revision: branch, tag or commit of the repository.
            packed: use packed inference (True), float (False), or what the weights are for (None).
            quality: as `from_file`.
            settings: `device`, `sampler`, `steps`, `seed`, `tile`, `overlap`, see `Upscaler`.
        Raises:
            InputError: no such folder or repository, no connection, or the weights or an option are wrong.
        """
        return cls(load_pretrained(name_or_folder, revision, packed, quality), **settings)

    @classmethod
    def shipped(cls, scale: int = 2, kind: str = "clean", *, quality: str | None = None, **settings: Any) -> "Upscaler":
        """An upscaler with the small network that comes with the package.

        Args:
            scale: 2 or 4.
            kind: kind of images, a key of `bidiffsr_arch.weights.SHIPPED`.
            quality: as `from_file`.
            settings: `device`, `sampler`, `steps`, `seed`, `tile`, `overlap`, see `Upscaler`.
        Raises:
            InputError: there are no such weights, the file is damaged, or an argument is wrong.
        """
        return cls(load_weights(shipped_weights(scale, kind), quality=quality), **settings)

    def calls(self, height: int, width: int) -> int:
        """Number of calls of the network, over all tiles and steps, for an image of height x width pixels."""
        if isinstance(self.network, DirectNetwork):
            rows, columns = self.network.grid(height, width)
        else:
            multiple = self.network.multiple
            sides = [-(-side * self.scale // multiple) * multiple for side in (height, width)]
            rows, columns = self.network.grid(*sides)
        return len(rows) * len(columns) * self.timesteps

    def __call__(self, image: AnyImage, on_tile: Callable[[], None] = lambda: None) -> AnyImage:
        """Upscale an image.

        Args:
            image: uint8 or uint16 of shape (H, W) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGB and
                alpha; or a PIL image. Alpha is upsampled by bicubic interpolation; before upscaling, hidden pixels get
                the colour of the nearest visible one.
            on_tile: called after each of `calls(H, W)` tiles, to show progress.
        Returns:
            The same kind of image, `scale` times as high and wide; a PIL image keeps its ICC profile and EXIF.
        Raises:
            InputError: another type or shape, not enough memory, or a sampler that diverged.
        """
        if isinstance(image, Image.Image):
            photo = from_pillow(image)
            return to_pillow(photo.resized(self(photo.pixels, on_tile)))
        _check(image)
        self.network.on_tile = on_tile
        colour, alpha = _split(torch.tensor(np.ascontiguousarray(fill_hidden(image))).to(self.device))
        white = float(np.iinfo(image.dtype).max)
        try:
            layers = [self.sample(colour / white)]
            if alpha is not None:
                layers.append(upsample(alpha / white, self.scale).clamp(0, 1))
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and CPU_OUT_OF_MEMORY not in str(error):
                raise
            tiles = f"tiles of {self.network.tile} pixels" if self.network.tile else "the whole image at once"
            raise InputError(f"expected memory for {tiles}, got too little; choose a smaller tile") from error
        if not is_finite(layers[0]):
            raise InputError("expected a finite result, got NaN or infinity; use more steps or another sampler")
        if colour_is_gray := image.ndim == 2 or image.shape[2] == 2:
            layers[0] = layers[0].mean(1, keepdim=True)
        result = torch.cat(layers, 1)[0].permute(1, 2, 0).mul_(white).round_().cpu().numpy().astype(image.dtype)
        return result[..., 0] if colour_is_gray and alpha is None else result

    def sample(self, image: Tensor) -> Tensor:
        """Upscale (1, 3, h, w) to (1, 3, scale * h, scale * w), both in [0, 1]."""
        if isinstance(self.network, DirectNetwork):
            return self.network(image)
        assert self.super_resolution is not None
        return self.super_resolution.sample(
            self.network, upsample(image, self.scale), [self.seed], multiple=self.network.multiple, steps=self.steps
        )


def _split(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colour (1, 3, H, W) and alpha (1, 1, H, W), float; gray becomes three equal channels."""
    planes = (pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1)[None].float()
    has_alpha = planes.shape[1] in (2, 4)
    colour = planes[:, : planes.shape[1] - has_alpha].expand(1, 3, -1, -1)
    return colour, planes[:, -1:] if has_alpha else None


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        got = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"expected a PIL image or an array of uint8 or uint16, got {got}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (2,), (3,), (4,)) or image.size == 0:
        raise InputError(f"expected an image of shape {LAYOUTS}, got {image.shape}")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises one of them without the device
        raise InputError(f"expected a device that this machine has, such as cpu, got {name}") from error

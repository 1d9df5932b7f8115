"""A diffusers pipeline: ``pipe(image)`` with schedulers, progress bar, callbacks and files as diffusers has them.

    from bidiffsr_arch.diffusers_pipeline import BIDiffSRPipeline

    pipe = BIDiffSRPipeline.from_weights("net_g.safetensors")
    large = pipe(image, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0]

It is a thin layer around `Upscaler`, so both produce the same images. diffusers finds `BIDiffSRNetwork` by the name of
this module when it loads a pipeline.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bidiffsr_arch.compat.imports import torchvision_operators
from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, load_weights
from bidiffsr_arch.pretrained import load_pretrained, save_pretrained
from bidiffsr_arch.upscale import AUTO, OVERLAP, Upscaler

torchvision_operators()  # diffusers' models import torchvision
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin, SchedulerMixin  # noqa: E402
from diffusers.utils import BaseOutput  # noqa: E402

OnStepEnd = Callable[["BIDiffSRPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
AnyImage = Image.Image | np.ndarray
FROM_NETWORK = ("prediction_type", "clip_sample", "clip_sample_range")  # scheduler arguments fixed by training


class BIDiffSRNetwork(ModelMixin, ConfigMixin):
    """A float or packed network as a diffusers model; its folder has the layout of the Hub, see `pretrained`.

    Args:
        weights: the network and its options; the options are in `config`, too.
    """

    config_name = "config.json"

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        if weights.is_direct:
            raise InputError("expected a diffusion network for a diffusers pipeline, got one without diffusion")
        self.register_to_config(**weights.options)
        self.weights, self.network = weights, weights.network
        self.register_buffer("device_tag", torch.zeros(()), persistent=False)  # packed networks have no other tensor

    def forward(self, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """The prediction of the network, see `BIDiffSRUNet.forward`."""
        return self.network(x_t, condition, time)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config.json, model.safetensors and a model card; other options of diffusers are ignored."""
        save_pretrained(self.network, save_directory, self.weights.options, overwrite=True)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, revision: str | None = None, subfolder: str = "",
        **options: Any,
    ) -> "BIDiffSRNetwork":  # fmt: skip
        """Load a network from a folder or the Hub; other options of diffusers are ignored.

        Raises:
            InputError: no such folder or repository, or wrong weights.
        """
        folder = Path(pretrained_model_name_or_path, subfolder) if subfolder else pretrained_model_name_or_path
        return cls(load_pretrained(folder, revision))


@dataclass
class SuperResolutionOutput(BaseOutput):
    """The result of a pipeline.

    Attributes:
        images: upscaled images, in the type chosen by ``output_type``.
    """

    images: list[Image.Image] | list[np.ndarray] | Tensor


class BIDiffSRPipeline(DiffusionPipeline):
    """Super-resolution by a diffusion network.

    diffusers refuses `enable_model_cpu_offload`, because there is no `model_cpu_offload_seq`: its hooks are in
    `BIDiffSRNetwork.forward`, which `Upscaler` does not call.

    Args:
        unet: the network.
        scheduler: any scheduler of diffusers; another one is set as ``pipe.scheduler =
            UniPCMultistepScheduler.from_config(pipe.scheduler.config)``. Prediction type and clipping stay those of the
            network.
    """

    unet: BIDiffSRNetwork
    scheduler: Any
    _callback_tensor_inputs = ("latents",)

    def __init__(self, unet: BIDiffSRNetwork, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @classmethod
    def from_weights(
        cls,
        weights: str | Path,
        options: str | Path | None = None,
        packed: bool | None = None,
        quality: str | None = None,
    ) -> "BIDiffSRPipeline":
        """Create a pipeline from anything that `load_weights` reads, with the scheduler in the weights' options.

        Raises:
            InputError: the weights or their options are wrong.
        """
        unet = BIDiffSRNetwork(load_weights(weights, options, packed, quality))
        return cls(unet, SuperResolution(DiffusionOptions.part_of(unet.weights.options)).diffusion.sampler())

    @torch.no_grad()
    def __call__(
        self,
        image: AnyImage | Tensor | list[AnyImage],
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
        tile: int | str | None = AUTO,
        overlap: int = OVERLAP,
    ) -> SuperResolutionOutput | tuple:
        """Upscale images, one after the other.

        Args:
            image: an image as for `Upscaler`, a list of them, or a float tensor (B, 3, H, W) in [0, 1].
            num_inference_steps: as in the weights' options if None.
            generator: CPU generator of the noise, one for all images or one per image; if None, seed 0 for each image.
            output_type: ``pil``, ``np`` (arrays of the image's type; of a tensor float, (H, W, 3)) or ``pt`` (a tensor
                (B, C, H, W) in [0, 1]; images of one size).
            return_dict: `SuperResolutionOutput`, else a tuple.
            callback_on_step_end: called as ``(pipe, step, timestep, {"latents": x})`` after each step; ``latents`` in
                the returned dictionary replace x.
            callback_on_step_end_tensor_inputs: ``latents`` or nothing.
            tile, overlap: as `Upscaler`'s.
        Raises:
            InputError: as `Upscaler`, or an unknown output_type.
        """
        if output_type not in OUTPUTS:
            raise InputError(f"expected output_type to be one of {', '.join(OUTPUTS)}, got {output_type!r}")
        images: list[Any] = [image]
        if isinstance(image, Tensor | list):
            images = list(image[:, None]) if isinstance(image, Tensor) else image
        generators = generator if isinstance(generator, list) else [generator] * len(images)
        if len(generators) != len(images):
            raise InputError(f"expected a generator for each of {len(images)} images, got {len(generators)}")
        upscaler = Upscaler(self.unet.weights, device=str(self.unet.device_tag.device), tile=tile, overlap=overlap)
        upscaler.steps = num_inference_steps
        inputs = callback_on_step_end_tensor_inputs if callback_on_step_end else ()
        assert upscaler.super_resolution is not None  # `BIDiffSRNetwork` accepts diffusion networks only
        _sample_by(self, upscaler.super_resolution.diffusion, callback_on_step_end, inputs)
        results: list[Any] = []
        for each, noise in zip(images, generators, strict=True):
            upscaler.seed = 0 if noise is None else noise
            results.append(upscaler.sample(each) if isinstance(each, Tensor) else upscaler(each))
        output = OUTPUTS[output_type](results)
        return SuperResolutionOutput(images=output) if return_dict else (output,)


def _sample_by(pipe: BIDiffSRPipeline, diffusion: Any, on_step_end: OnStepEnd | None, inputs: tuple[str, ...]) -> None:
    """Replace a diffusion's scheduler by the pipeline's, and report each step to the pipeline."""
    trained = {name: diffusion.training.config[name] for name in FROM_NETWORK}
    kind = type(pipe.scheduler)
    diffusion.sampler_clips = "clip_sample" in inspect.signature(kind).parameters
    default_steps = diffusion.schedule.num_inference_steps

    def sampler(steps: int | None = None, device: torch.device | str = "cpu") -> Any:
        changes = trained if diffusion.sampler_clips else {"prediction_type": "epsilon"}
        scheduler = kind.from_config(pipe.scheduler.config, **changes)
        scheduler.set_timesteps(default_steps if steps is None else steps, device=device)
        bar, take_step, count = pipe.progress_bar(total=len(scheduler.timesteps)), scheduler.step, iter(range(10**9))

        @wraps(take_step)
        def step(prediction: Tensor, t: Tensor, x: Tensor, **further: Any) -> Any:
            result = take_step(prediction, t, x, **further)
            if on_step_end is not None:
                given = {"latents": result.prev_sample} if "latents" in inputs else {}
                changed: Mapping[str, Tensor] = on_step_end(pipe, next(count), t, given) or {}
                result.prev_sample = changed.get("latents", result.prev_sample)
            bar.update()
            if bar.n >= len(scheduler.timesteps):
                bar.close()
            return result

        scheduler.step = step
        return scheduler

    diffusion.sampler = sampler


def _as_tensors(results: list[Any]) -> Tensor:
    tensors = [result if isinstance(result, Tensor) else _as_tensor(np.asarray(result)) for result in results]
    return torch.cat(tensors)


def _as_tensor(pixels: np.ndarray) -> Tensor:
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    return torch.tensor(planes / np.float32(np.iinfo(pixels.dtype).max)).permute(2, 0, 1)[None]


def _as_array(result: Any) -> np.ndarray:
    return result[0].permute(1, 2, 0).cpu().numpy() if isinstance(result, Tensor) else np.asarray(result)


def _as_image(result: Any) -> Image.Image:
    if isinstance(result, Image.Image):
        return result
    pixels = _as_array(result)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        raise InputError('expected output_type="np" for 16-bit colour, which Pillow does not support, got "pil"')
    return Image.fromarray((pixels * 255).round().astype(np.uint8) if pixels.dtype.kind == "f" else pixels)


OUTPUTS: dict[str, Callable[[list[Any]], Any]] = {
    "pil": lambda results: [_as_image(result) for result in results],
    "np": lambda results: [_as_array(result) for result in results],
    "pt": _as_tensors,
}

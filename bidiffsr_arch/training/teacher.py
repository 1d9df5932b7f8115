"""Learn from a trained network, the teacher, instead of the ground truth (`Distillation`) or in addition (`Teacher`).

Both are read from a file of weights, with the options that lie beside it or that are named; neither is trained. What
they say depends on the sample and its noise alone, so that a resumed training learns the same from them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import Trained
from bidiffsr_arch.config.training import Distill, TeacherBlock
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, load_weights


def _load(block: Distill | TeacherBlock, scale: int | None, device: torch.device, name: str) -> Weights:
    """The teacher of `train: {name}:`, frozen."""
    weights = load_weights(block.path, block.options)
    if weights.scale != scale:
        raise InputError(f"expected a teacher of x{scale} in train: {name}, got {block.path} of x{weights.scale}")
    if isinstance(weights.network, nn.Module):
        weights.network.to(device).requires_grad_(False)
    return weights


def _meaning(super_resolution: SuperResolution) -> dict[str, Any]:
    """The options that decide what a prediction means."""
    diffusion = super_resolution.diffusion
    schedule = ("schedule", "n_timestep", "linear_start", "linear_end", "prediction_type")
    return {
        "diffuse": "residual" if super_resolution.residual else "image",
        "residual_scale": super_resolution.residual_scale,
        "data_range": [super_resolution.black, super_resolution.white],
        "time_input": diffusion.time_input,
        **{name: getattr(diffusion.schedule, name) for name in schedule},
    }


class Distillation:
    """Few-step sampling learned from many steps (SinSR, Wang et al. 2024).

    The teacher's sampler turns a condition and noise into an image in many steps, deterministically. Training takes
    that image in place of the ground truth, with *the same* noise: the student learns the map from this noise to this
    image; from the ground truth it could only learn the average of all images that the condition allows. Draw
    the student's few timesteps alone with ``timestep_weighting: {sampler: 1}``.

    Args:
        block: the teacher's file, and its sampling steps. It may be another network and have another range of values
            than the student's. Its sampler should be deterministic, as DDIM.
        scale: the student's.
        device: where the student is trained.
    Raises:
        InputError: no such file, or a teacher of another scale.
    """

    def __init__(self, block: Distill, scale: int | None, device: torch.device) -> None:
        self.weights = _load(block, scale, device, "distill")
        self.super_resolution = SuperResolution(Trained.part_of(self.weights.options))
        self.steps = block.steps
        self.super_resolution.diffusion.sampler(self.steps)

    def result(self, condition: Tensor, noise: Tensor) -> Tensor:
        """The teacher's images for conditions, (B, 3, H, W) in [0, 1], from this noise; sides are multiples of what it
        takes."""
        return self.super_resolution.sample_from(noise, self.weights.network, condition, steps=self.steps)


class Teacher:
    """A better network of the same diffusion, such as one in full precision, whose predictions are part of the target.

    Args:
        block: the teacher's file, and its share of the target; the rest is the truth.
        student: what the student is trained to do.
        device: where the student is trained.
    Raises:
        InputError: no such file, or a teacher that predicts something else.
    """

    def __init__(self, block: TeacherBlock, student: Trained, device: torch.device) -> None:
        self.weights = _load(block, student.scale, device, "teacher")
        self.weight = block.weight
        own = Trained.part_of(self.weights.options)
        theirs, wanted = (_meaning(SuperResolution(trained)) for trained in (own, student))
        for name in wanted:
            if theirs[name] != wanted[name]:
                raise InputError(
                    f"expected a teacher with {name}: {wanted[name]}, as the student, got {theirs[name]} in "
                    f"{block.path}"
                )

    @torch.no_grad()
    def blend(self, target: Tensor, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """The target (B, 3, H, W) with the teacher's prediction from the student's own inputs as a part of it."""
        return target.lerp(self.weights.network(x_t, condition, time).to(target), self.weight)

"""Learn from a trained network, the teacher, instead of the ground truth (`Distillation`) or in addition (`Teacher`).

Teachers are loaded from a weights file, with their stored options or a named option file, and are not trained. Their
outputs depend on the sample and its noise only, so that a resumed training sees the same outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bidiffsr_arch.config.diffusion import DiffusionOptions
from bidiffsr_arch.config.training import Distill, TeacherBlock
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import Weights, is_direct, load_weights
from bidiffsr_arch.training.option_changes import NOISE


def _load(block: Distill | TeacherBlock, scale: int | None, device: torch.device, name: str) -> Weights:
    """The teacher of `train: {name}:`, frozen."""
    weights = load_weights(block.path, block.options)
    if is_direct(weights.network):
        raise InputError(f"expected a diffusion network as the teacher in train: {name}, got {block.path}, one without")
    if weights.scale != scale:
        raise InputError(f"expected a teacher of x{scale} in train: {name}, got {block.path} of x{weights.scale}")
    if isinstance(weights.network, nn.Module):
        weights.network.to(device).requires_grad_(False)
    return weights


def _meaning(trained: DiffusionOptions) -> dict[str, Any]:
    """The options that define the meaning of a prediction; None for those that are off."""
    schedule = trained.beta_schedule.model_dump()
    return {
        "diffuse": trained.diffuse,
        "residual_scale": trained.residual_scale if trained.diffuse == "residual" else None,
        "data_range": list(trained.data_range),
        "time_input": trained.time_input,
        **{name: schedule.get(name) or None for name in NOISE},
    }


class Distillation:
    """Few-step sampling learned from many steps (SinSR, Wang et al. 2024).

    The teacher's sampler deterministically maps a condition and noise to an image in many steps. Training replaces the
    ground truth by that image and uses *the same* noise, so that the student learns this map; with the ground truth it
    could only learn the average of all images that the condition allows. ``timestep_weighting: {sampler: 1}`` draws
    only the student's few timesteps.

    Args:
        block: the teacher's file and number of sampling steps. Architecture and range of values may differ from the
            student's.
        scale: scale of the student.
        device: device of the student.
    Raises:
        InputError: no such file, a teacher of another scale, or one whose sampler draws noise.
    """

    def __init__(self, block: Distill, scale: int | None, device: torch.device) -> None:
        self.weights = _load(block, scale, device, "distill")
        self.super_resolution = SuperResolution(DiffusionOptions.part_of(self.weights.options))
        self.steps = block.steps
        diffusion = self.super_resolution.diffusion
        if diffusion.draws_noise(self.steps):
            raise InputError(
                "expected a teacher whose image depends on the initial noise only in train: distill, got the sampler "
                f"{diffusion.schedule.scheduler_type} in {block.path}, which draws more; take DDIM with eta: 0"
            )

    def result(self, condition: Tensor, noise: Tensor) -> Tensor:
        """The teacher's images for conditions (B, 3, H, W) in [0, 1] and this noise; height and width are multiples of
        the network's `multiple`."""
        return self.super_resolution.sample_from(noise, self.weights.network, condition, steps=self.steps)


class Teacher:
    """A better network for the same diffusion, such as one in full precision, whose predictions are mixed into the
    target.

    Args:
        block: the teacher's file and the weight of its prediction in the target.
        student: options of the student.
        device: device of the student.
    Raises:
        InputError: no such file, a teacher of another scale, or one whose predictions have another meaning.
    """

    def __init__(self, block: TeacherBlock, student: DiffusionOptions, device: torch.device) -> None:
        self.weights = _load(block, student.scale, device, "teacher")
        self.weight = block.weight
        own = DiffusionOptions.part_of(self.weights.options)
        theirs, wanted = _meaning(own), _meaning(student)
        for name in wanted:
            if theirs[name] != wanted[name]:
                raise InputError(
                    f"expected a teacher with {name}: {wanted[name]}, as the student, got {theirs[name]} in "
                    f"{block.path}"
                )

    @torch.no_grad()
    def blend(self, target: Tensor, x_t: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """The weighted mean of the target (B, 3, H, W) and the teacher's prediction for the same inputs."""
        return target.lerp(self.weights.network(x_t, condition, time).to(target), self.weight)

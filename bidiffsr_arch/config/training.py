"""The blocks `train`, `val`, `logger`, `path`, `dist_params` and `expected` of an option file."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from bidiffsr_arch.config.kinds import (
    Count,
    FromZero,
    Index,
    Items,
    Iterations,
    Number,
    Positive,
    Share,
    Steps,
    Text,
    Weight,
    Whole,
)
from bidiffsr_arch.config.struct import Struct


class Step(Struct):
    """How a training step is computed; part of ``train``."""

    amp: Literal["bf16", "fp16"] | None = Field(None, description="mixed precision; `fp16` with a loss scaler")
    compile: bool | None = Field(False, description="compile the network with `torch.compile`")
    accumulate: Items | None = Field(
        None, description="gradient accumulation: process a batch in N parts and average their gradients"
    )
    grad_clip: Positive | None = Field(None, description="clip the gradients to this 2-norm, taken over all parameters")
    checkpointing: bool | None = Field(
        False, description="activation checkpointing: recompute ResBlocks in the backward pass, which saves memory"
    )
    channels_last: bool | None = Field(False, description="memory layout of images")


class Optimizer(Struct, extra="allow"):
    """An optimizer of torch.optim. Further keys are its arguments."""

    type: Literal["Adam", "AdamW", "Adamax", "SGD", "ASGD", "RMSprop", "Rprop"] = Field(description="its class")
    lr: Positive = Field(description="learning rate")
    weight_decay: FromZero = Field(0, description="weight decay")
    betas: list[Share] = Field([0.9, 0.999], min_length=2, max_length=2, description="of Adam, AdamW and Adamax")
    eps: Positive = Field(1e-8, description="of Adam, AdamW and Adamax")


class Scheduler(Struct, extra="allow"):
    """A learning-rate scheduler of BasicSR or of another package. Further keys are its arguments."""

    type: Text = Field(description="`MultiStepLR`, `CosineAnnealingRestartLR`, or another package's")
    milestones: Iterations = Field([], description="iterations after which `gamma` multiplies the rate")
    gamma: FromZero = Field(0.1, description="of `MultiStepLR`")
    restarts: Iterations = Field([0], description="of `MultiStepLR`: iterations at which the schedule restarts")
    periods: list[Count] = Field(
        [], strict=False, description="of `CosineAnnealingRestartLR`: lengths of the periods in iterations"
    )
    restart_weights: list[Number] = Field([1], description="factors of the rate after each restart")
    eta_min: FromZero = Field(0, description="of `CosineAnnealingRestartLR`: the lowest rate")

    def _relations(self) -> Iterator[str]:
        name = {"CosineAnnealingRestartLR": "periods", "MultiStepLR": "restarts", "MultiStepRestartLR": "restarts"}
        parts = getattr(self, name[self.type]) if self.type in name else None
        if parts is not None and len(parts) != len(self.restart_weights):
            yield (
                f"expected train: scheduler: restart_weights to have a number for each of {name[self.type]} "
                f"{parts}, got {self.restart_weights}"
            )


class TimestepWeights(Struct):
    """Relative frequencies of two kinds of timesteps in training."""

    uniform: FromZero = Field(0, description="weight of all timesteps, drawn uniformly")
    sampler: FromZero = Field(
        0, description="weight of the timesteps at which the sampler calls the network, drawn uniformly"
    )

    def _relations(self) -> Iterator[str]:
        if not self.uniform + self.sampler:
            yield "expected a weight above 0 in train: timestep_weighting, got none"


class Distill(Struct):
    """Few-step sampling learned from a trained network's many-step sampling; see `training.teacher`."""

    path: Text = Field(description="the trained network, a `.pth` or a packed `.safetensors`")
    options: Text | None = Field(None, description="its option file, if that is not stored beside the `.pth`")
    steps: Steps | None = Field(None, description="its number of sampling steps; as in its options if `~`")


class TeacherBlock(Struct):
    """A better network for the same diffusion, whose predictions are mixed into the target; see `training.teacher`."""

    path: Text = Field(description="the teacher, a `.pth` or a packed `.safetensors`")
    options: Text | None = Field(None, description="its option file, if that is not stored beside the `.pth`")
    weight: Weight = Field(0.5, description="weight of its prediction in the target")


class LossChange(Struct, extra="allow"):
    """A loss that replaces the one before. Further keys are its arguments."""

    from_iter: Count = Field(description="the iteration from which it is used")
    type: Text = Field(description="a loss of BasicSR or of another package, such as `L1Loss`, `CharbonnierLoss`")


class ObjectiveOptions(Step):
    """What a network is trained for, and how a step is computed; part of ``train``."""

    timestep_weighting: TimestepWeights | None = Field(
        None, description="relative frequencies of timesteps, as in `{uniform: 1, sampler: 3}`; `~`: uniform"
    )
    distill: Distill | None = Field(
        None, description="distill the many-step sampling of a trained network into few steps"
    )
    teacher: TeacherBlock | None = Field(None, description="also learn from the predictions of a better network")
    pixel_opt: dict[str, Any] | None = Field(None, description="the loss, such as `{type: L1Loss}`")
    perceptual_opt: dict[str, Any] | None = Field(
        None, description="a loss of images in addition: `{type: LPIPSLoss}`, or BasicSR's `PerceptualLoss`"
    )
    loss_schedule: list[LossChange] | None = Field(
        None, description="losses that follow `pixel_opt`, as in `[{from_iter: 20000, type: L1Loss}]`"
    )

    def _relations(self) -> Iterator[str]:
        changes = self.loss_schedule or []
        iterations = [change.from_iter for change in changes]
        if iterations != sorted(set(iterations)):
            yield f"expected train: loss_schedule to have rising from_iter, got {iterations}"
        if any((change.model_extra or {}).get("reduction") == "none" for change in changes):
            yield "expected train: loss_schedule: reduction: mean or sum, got none: the loss must be one number"
        for name in ("pixel_opt", "perceptual_opt"):
            if (getattr(self, name) or {}).get("reduction") == "none":
                yield f"expected train: {name}: reduction: mean or sum, got none: the loss must be one number"


class RunLength(Struct):
    """How long a run is; part of ``train``."""

    total_iter: Count = Field(description="number of iterations")


class Train(ObjectiveOptions, RunLength):
    """How a network is trained."""

    optim_g: Optimizer = Field(description="the optimizer")
    scheduler: Scheduler = Field(description="the schedule of the learning rate")
    warmup_iter: Whole = Field(-1, description="iterations of linear warm-up of the rate; -1: none")
    ema_decay: Share = Field(
        0,
        description="decay of the average of parameters and buffers, validated and saved as `params_ema`; 0: none",
    )

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        schedule, steps = self.scheduler, self.scheduler.type in ("MultiStepLR", "MultiStepRestartLR")
        if schedule.type == "CosineAnnealingRestartLR" and sum(schedule.periods) < self.total_iter - 1:
            yield (
                f"expected train: scheduler: periods to reach total_iter {self.total_iter}, got {schedule.periods}, "
                f"{sum(schedule.periods)} together"
            )
        if self.loss_schedule and self.loss_schedule[-1].from_iter > self.total_iter:
            yield (
                f"expected train: loss_schedule: from_iter of at most total_iter {self.total_iter}, got "
                f"{self.loss_schedule[-1].from_iter}, which is never reached"
            )
        if self.warmup_iter > self.total_iter:
            yield (
                f"expected train: warmup_iter of at most total_iter {self.total_iter}, got {self.warmup_iter}, with "
                "which the learning rate is never reached"
            )
        early = [place for place in schedule.milestones if place < self.warmup_iter] if steps else []
        if early and schedule.gamma != 1:
            yield (
                f"expected train: scheduler: milestones after warmup_iter {self.warmup_iter}, got {early[0]}, which "
                "the warm-up undoes"
            )


class Metric(Struct, extra="allow"):
    """A metric of the validation. Further keys are its arguments."""

    type: Text = Field(
        description="`calculate_psnr`, `calculate_ssim`, `calculate_niqe`, `calculate_lpips`, `calculate_iqa` "
        "(`metric`: one of pyiqa's), `calculate_params` (in M), `calculate_ops` (in G), or another package's"
    )
    better: Literal["higher", "lower"] = Field(
        "higher", description="which values are better; pyiqa's own value for `calculate_iqa`"
    )
    crop_border: Index = Field(0, description="width in pixels of the border that is left out")


class Val(Struct):
    """Validation and tests."""

    val_freq: Count | None = Field(None, description="training: iterations between validations")
    save_img: bool = Field(description="write the results as PNG")
    suffix: Text | None = Field(None, description="suffix of file names in tests; the experiment's name if `~`")
    pbar: bool = Field(False, description="show progress bars over images and sampling steps")
    packed: bool = Field(False, description="packed inference: XNOR-popcount instead of float convolutions")
    metrics: dict[str, Metric] | None = Field(None, description="metrics by the name that they have in logs")


class Wandb(Struct):
    """Weights & Biases."""

    project: Text | None = Field(None, description="name of the project; `~`: off")
    resume_id: Text | None = Field(None, description="ID of the run to continue")


class RetentionOptions(Struct):
    """Which checkpoints are kept; part of ``logger``."""

    keep_newest: Items | None = Field(None, description="number of newest checkpoints to keep; `~`: all")
    keep_best: Text | None = Field(None, description="also keep the best checkpoint by this metric")

    def _relations(self) -> Iterator[str]:
        if self.keep_best is not None and self.keep_newest is None:
            yield "expected logger: keep_newest beside keep_best, got none: nothing would be deleted"


def unknown_best(kept: RetentionOptions, metrics: Mapping[str, Any]) -> Iterator[str]:
    """Violated relations between ``logger: keep_best`` and ``val: metrics``, one sentence each."""
    if kept.keep_best is not None and kept.keep_best not in metrics:
        known = ", ".join(metrics) or "none"
        yield f"expected logger: keep_best to be one of val: metrics ({known}), got {kept.keep_best!r}"


class Logger(RetentionOptions):
    """What is logged and saved, and how often."""

    print_freq: Count = Field(description="iterations between lines of the log")
    save_checkpoint_freq: Count = Field(description="iterations between checkpoints")
    use_tb_logger: bool = Field(description="write TensorBoard files")
    wandb: Wandb | None = Field(None, description="Weights & Biases")


class Paths(Struct):
    """Files that a run reads, and folders that it writes."""

    pretrain_network_g: Text | None = Field(
        None, description="initial weights, or weights to test: `.pth`, or in tests a packed `.safetensors`"
    )
    strict_load_g: bool = Field(True, description="refuse weights whose names or shapes differ")
    param_key_g: Text | None = Field(
        "params",
        description="key of the network in the file; tests of `BIDiffSRModel` default to `params_ema`; in a packed "
        "file `fidelity` or `perceptual`",
    )
    resume_state: Text | None = Field(None, description="training state to resume from")
    ignore_resume_networks: Any = Field(None, description="networks that are not loaded when resuming")
    experiments_root: Text | None = Field(None, description="folder of a training run; `experiments/NAME` if `~`")
    results_root: Text | None = Field(None, description="folder of a test; `results/NAME` if `~`")


class DistParams(Struct):
    """Distributed training with Slurm."""

    backend: Text = Field("nccl", description="`nccl`, or `gloo` on CPUs")
    port: Items = Field(29500, description="port of the first process")


class Expected(Struct):
    """A number with which `basicsr test --check` compares."""

    value: Number = Field(description="the number")
    tolerance: FromZero = Field(description="largest allowed difference")

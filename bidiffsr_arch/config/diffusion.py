"""Options of a diffusion network that training, sampling and packed files share."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from bidiffsr_arch.config.kinds import Items, Number, Pair, Positive, Steps, Text
from bidiffsr_arch.config.qualities import FIRST
from bidiffsr_arch.config.struct import Struct

# Samplers that are tested (`tests/test_samplers.py`). The other schedulers of diffusers do not fit such networks: they
# are for inversion, for distilled or cascaded models, or for flow matching.
Sampler = Literal[
    "DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep",
    "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete",
    "LMSDiscrete", "PNDM", "SASolver", "UniPCMultistep",
]  # fmt: skip
SCHEDULE_NAMES = {"cosine": "squaredcos_cap_v2"}


def _without_suffix(value: Any) -> Any:
    return value.removesuffix("Scheduler") if isinstance(value, str) else value


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


def _or_none(schema: dict[str, Any]) -> None:
    """Let a field's JSON Schema accept null."""
    reference = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}  # allOf before pydantic 2.9
    schema["anyOf"] = [reference, {"type": "null"}]


class BetaSchedule(Struct, extra="allow"):
    """Noise schedule and sampler. Further keys are arguments of the diffusers scheduler.

    Defaults are the paper's. ``timestep_spacing`` and ``clip_sample`` default to those of diffusers' DDIM for all
    samplers, because the defaults of other schedulers differ.
    """

    scheduler_type: Annotated[Sampler, BeforeValidator(_without_suffix)] = Field(
        "DDIM", description="sampler: a scheduler of diffusers, with or without `Scheduler`"
    )
    schedule: Text = Field(
        "linear",
        validation_alias=AliasChoices("schedule", "beta_schedule"),
        description="noise schedule: `linear`, `scaled_linear`, `cosine`, …",
    )
    n_timestep: Steps = Field(
        2000,
        validation_alias=AliasChoices("n_timestep", "num_train_timesteps"),
        description="number T of timesteps in training",
    )
    linear_start: Positive = Field(
        1e-6, validation_alias=AliasChoices("linear_start", "beta_start"), description="first beta"
    )
    linear_end: Positive = Field(1e-2, validation_alias=AliasChoices("linear_end", "beta_end"), description="last beta")
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = Field(
        "epsilon", description="prediction of the network: the noise, x0, or sqrt(abar) noise - sqrt(1 - abar) x0"
    )
    num_inference_steps: Steps = Field(50, description="number of sampling steps")
    eta: Annotated[float, Field(ge=0, le=1)] = Field(
        0, description="noise that DDIM adds in every step: 0: none, 1: as much as DDPM; no effect on other samplers"
    )
    timestep_spacing: Text = Field("leading", description="spacing of the sampling timesteps")
    clip_sample: bool = Field(True, description="clip the predicted x0 in every sampling step")
    clip_sample_range: Positive = Field(1.0, description="to [-range, range]")
    is_guidance: bool = Field(False, description="the reference's key, always `false`")
    guidance_scale: Number = Field(7.5, description="the reference's key, without effect")

    def _relations(self) -> Iterator[str]:
        if self.is_guidance:
            yield (
                "expected beta_schedule: is_guidance: false, got true: classifier-free guidance needs a network that "
                "was also trained without a condition, which BI-DiffSR is not"
            )

    def arguments(self) -> dict[str, Any]:
        """The options under diffusers' names, for the constructor of a scheduler."""
        return {
            "num_train_timesteps": self.n_timestep,
            "beta_schedule": SCHEDULE_NAMES.get(self.schedule, self.schedule),
            "beta_start": self.linear_start,
            "beta_end": self.linear_end,
            "prediction_type": self.prediction_type,
            "timestep_spacing": self.timestep_spacing,
            "clip_sample": self.clip_sample,
            "clip_sample_range": self.clip_sample_range,
            **(self.model_extra or {}),
        }


class Scaled(Struct):
    """Options of every super-resolution network."""

    scale: Items | None = Field(None, description="scale factor from LR to HR")


class DiffusionOptions(Scaled):
    """Options at the top level of an option file that describe the diffusion of a network."""

    beta_schedule: Annotated[BetaSchedule, BeforeValidator(_none_is_empty)] = Field(
        BetaSchedule(), json_schema_extra=_or_none, description="noise schedule and sampler"
    )
    diffuse: Literal["image", "residual"] = Field(
        "image", description="diffusion target: HR (the paper), or HR minus the upsampled LR (SRDiff, Li et al. 2022)"
    )
    residual_scale: Number = Field(2.0, description="factor of a residual before it is diffused")
    data_range: Pair = Field([0, 1], description="values of black and white inside the network; [-1, 1] for SR3")
    time_input: Literal["timestep", "noise_level"] = Field(
        "timestep", description="input of the network: t, or the noise level sqrt(abar_t) (SR3's checkpoints)"
    )

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if self.residual_scale == 0:
            yield "expected residual_scale other than 0, got 0"
        if self.data_range[0] == self.data_range[1]:
            yield f"expected two different values in data_range, got {list(self.data_range)}"

    def sampled_by(self, **changes: Any) -> "DiffusionOptions":
        """The same network, with other options in ``beta_schedule``, such as ``scheduler_type``.

        Raises:
            InputError: an unknown or impossible value.
        """
        given = self.beta_schedule.model_dump() | changes
        return self.model_copy(update={"beta_schedule": BetaSchedule.read(given, place="beta_schedule")})


class Description(DiffusionOptions):
    """Description of the network in a packed file."""

    network_g: dict[str, Any] = Field(description="options of the architecture, as in an option file")
    steps: Steps = Field(50, description="default number of sampling steps")
    source: str = Field("", description="name of the checkpoint that was packed")
    source_sha256: str = Field("", description="digest of that checkpoint")
    params: str = Field("", description="its key in that checkpoint: `params` or `params_ema`")
    about: dict[str, Any] = Field({}, description="information for people, see `bidiffsr_arch.description`")
    sets: dict[str, dict[str, Any]] = Field({}, description="descriptions of further sets of parameters, by quality")

    def __init__(self, network_g: dict[str, Any] | None = None, **further: Any) -> None:
        super().__init__(**(further if network_g is None else {"network_g": network_g, **further}))

    @property
    def options(self) -> dict[str, Any]:
        """The options that sampling needs, by their names in an option file."""
        return self.model_dump(include=set(DiffusionOptions.model_fields))

    def by_quality(self, source: Any) -> dict[str, "Description"]:
        """The description of each set of parameters, the first one's first.

        Args:
            source: name of the file, for messages.
        Raises:
            InputError: one of them is wrong.
        """
        own = self.model_dump(exclude_unset=True, exclude={"sets"})
        sets = {FIRST: own, **self.sets}
        return {quality: Description.part_of(block, f"{source}: {quality}") for quality, block in sets.items()}

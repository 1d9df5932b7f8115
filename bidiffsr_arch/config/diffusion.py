"""What a diffusion network was trained to do: the options that training, sampling and a packed file share."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from bidiffsr_arch.config.kinds import Items, Number, Pair, Positive, Steps, Text
from bidiffsr_arch.config.struct import Struct

# Other schedulers of diffusers are no samplers for such networks: those for the way from images to noise, for distilled
# or cascaded models, and for flow matching. What is not here was not tested (`tests/test_samplers.py`).
Sampler = Literal[
    "DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep",
    "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete",
    "LMSDiscrete", "PNDM", "SASolver", "UniPCMultistep",
]  # fmt: skip
SCHEDULE_NAMES = {"cosine": "squaredcos_cap_v2"}

QUALITIES = {
    "fidelity": "closest to the true image, pixel by pixel",
    "perceptual": "sharper, at some cost of fidelity, in more steps",
}
"""The sets of parameters that a packed file may hold, and what they are for. Every file has the first one."""
FIRST = next(iter(QUALITIES))


def _without_suffix(value: Any) -> Any:
    return value.removesuffix("Scheduler") if isinstance(value, str) else value


def _named(*names: str) -> Any:
    """Both the reference's name of an option and that of diffusers."""
    return AliasChoices(*names)


class BetaSchedule(Struct, extra="allow"):
    """Noise schedule and sampler. Further keys are arguments of the diffusers scheduler.

    Defaults are the paper's. ``timestep_spacing`` and ``clip_sample`` have the defaults of diffusers' DDIM, since its
    other schedulers would choose others by themselves.
    """

    scheduler_type: Annotated[Sampler, BeforeValidator(_without_suffix)] = Field(
        "DDIM", description="sampler: a scheduler of diffusers, with or without `Scheduler`"
    )
    schedule: Text = Field(
        "linear",
        validation_alias=_named("schedule", "beta_schedule"),
        description="noise schedule: `linear`, `scaled_linear`, `cosine`, …",
    )
    n_timestep: Steps = Field(
        2000, validation_alias=_named("n_timestep", "num_train_timesteps"), description="number T of training timesteps"
    )
    linear_start: Positive = Field(
        1e-6, validation_alias=_named("linear_start", "beta_start"), description="first beta"
    )
    linear_end: Positive = Field(1e-2, validation_alias=_named("linear_end", "beta_end"), description="last beta")
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = Field(
        "epsilon", description="what the network predicts: the noise, x0, or sqrt(abar) noise - sqrt(1 - abar) x0"
    )
    num_inference_steps: Steps = Field(50, description="number of sampling steps")
    eta: Annotated[float, Field(ge=0, le=1)] = Field(
        0, description="noise that DDIM adds in every step: 0 for none, 1 for as much as DDPM; of no effect in others"
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
    """What every network for super-resolution is trained for."""

    scale: Items | None = Field(None, description="HR size by LR size")


class Trained(Scaled):
    """The options at an option file's top level that say what a diffusion network was trained to do."""

    beta_schedule: Annotated[BetaSchedule, BeforeValidator(lambda value: {} if value is None else value)] = Field(
        BetaSchedule(), description="noise schedule and sampler"
    )
    diffuse: Literal["image", "residual"] = Field(
        "image", description="what is diffused: HR (the paper), or HR minus the upsampled LR (SRDiff, Li et al. 2022)"
    )
    residual_scale: Number = Field(2.0, description="what a residual is multiplied by before it is diffused")
    data_range: Pair = Field([0, 1], description="values of black and white inside the network; SR3 has [-1, 1]")
    time_input: Literal["timestep", "noise_level"] = Field(
        "timestep", description="what the network is told: t, or the noise level sqrt(abar_t) (SR3's checkpoints)"
    )

    def _relations(self) -> Iterator[str]:
        yield from super()._relations()
        if self.residual_scale == 0:
            yield "expected residual_scale other than 0, got 0"
        if self.data_range[0] == self.data_range[1]:
            yield f"expected two different values in data_range, got {list(self.data_range)}"

    def sampled_by(self, **changes: Any) -> "Trained":
        """The same network, with other options in ``beta_schedule``, such as ``scheduler_type``.

        Raises:
            InputError: an unknown or impossible value.
        """
        given = self.beta_schedule.model_dump() | changes
        return self.model_copy(update={"beta_schedule": BetaSchedule.read(given, place="beta_schedule")})


class Description(Trained):
    """What a packed file says of the network in it."""

    network_g: dict[str, Any] = Field(description="options of the architecture, as in an option file")
    steps: Steps = Field(50, description="number of sampling steps, where nothing else is asked for")
    source: str = Field("", description="name of the checkpoint that was packed")
    source_sha256: str = Field("", description="digest of that checkpoint")
    params: str = Field("", description="which of its networks: `params` or `params_ema`")
    about: dict[str, Any] = Field({}, description="what people want to know, see `bidiffsr_arch.description`")
    sets: dict[str, dict[str, Any]] = Field({}, description="descriptions of further sets of parameters, by quality")

    def __init__(self, network_g: dict[str, Any] | None = None, **further: Any) -> None:
        super().__init__(**(further if network_g is None else {"network_g": network_g, **further}))

    @property
    def options(self) -> dict[str, Any]:
        """What sampling needs, under the names that it has at an option file's top level."""
        return self.model_dump(include=set(Trained.model_fields))

    def by_quality(self, source: Any) -> dict[str, "Description"]:
        """The description of each set of parameters, the first one's first.

        Args:
            source: names the file in an error.
        Raises:
            InputError: one of them is wrong.
        """
        own = self.model_dump(exclude_unset=True, exclude={"sets"})
        sets = {FIRST: own, **self.sets}
        return {quality: Description.part_of(said, f"{source}: {quality}") for quality, said in sets.items()}

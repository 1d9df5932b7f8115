"""diffusers' schedulers that can sample a network of this package, each imported only where it is used."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from bidiffsr_arch.errors import choose

SUFFIX = "Scheduler"
NEEDED_ARGUMENTS = {"num_train_timesteps", "beta_schedule", "prediction_type"}  # a discrete schedule of betas
# In diffusers, too, and no samplers for such networks: the way from images to noise, and other models' own.
NOT_SAMPLERS = ("DDIMInverse", "DPMSolverMultistepInverse", "CogVideoXDDIM", "CogVideoXDPM", "LCM", "TCD", "UnCLIP")


def sampler_class(name: str) -> type:
    """The scheduler of that name, with or without "Scheduler".

    Raises:
        InputError: diffusers has none; those that it has are listed.
    """
    name = name.removesuffix(SUFFIX)
    found = diffusers_class(name + SUFFIX)
    return found if _is_sampler(name, found) else choose("beta_schedule: scheduler_type", name, known_samplers())


def known_samplers() -> dict[str, type]:
    """diffusers' schedulers that work on a discrete schedule of betas, by name without "Scheduler"."""
    with _without_dynamo():
        names = [name.removesuffix(SUFFIX) for name in dir(import_module("diffusers")) if name.endswith(SUFFIX)]
    classes = {name: diffusers_class(name + SUFFIX) for name in names}
    return {name: found for name, found in classes.items() if _is_sampler(name, found)}


def diffusers_class(name: str) -> type | None:
    """A class of diffusers, which imports a class's module when the class is asked for; None if there is none."""
    with _without_dynamo():
        return getattr(import_module("diffusers"), name, None)


def arguments(function: Callable) -> set[str]:
    """The names of a function's, or of a class's constructor's, arguments."""
    return set(inspect.signature(function).parameters)


def _is_sampler(name: str, found: type | None) -> bool:
    return found is not None and name not in NOT_SAMPLERS and arguments(found) >= NEEDED_ARGUMENTS


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Keep diffusers from importing torch's compiler, which takes as long as importing torch.

    diffusers marks layers of its models for `torch.compile`, and goes without where the import fails. Schedulers have
    no layers.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    sys.modules["torch._dynamo"] = None
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"]

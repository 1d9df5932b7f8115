"""Both backends have the operations of `Backend`."""

import inspect

import pytest

from bidiffsr_arch.packed.backends import Backend

OPERATIONS = [name for name, function in vars(Backend).items() if inspect.isfunction(function) and name[0] != "_"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_signatures_are_those_of_the_protocol(backend, operation):
    """mypy compares types; this compares defaults and keywords, too."""
    given, ours = (inspect.signature(getattr(kind, operation)) for kind in (Backend, type(backend)))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in given.parameters.values()
    ]
    assert operation in vars(type(backend))


def test_the_protocol_names_every_operation(backend):
    public = {name for name, value in vars(type(backend)).items() if inspect.isfunction(value) and name[0] != "_"}
    assert public == set(OPERATIONS)

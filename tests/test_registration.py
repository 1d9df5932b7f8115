"""Importing the package registers it, once, and leaves others' registrations alone."""

import warnings

import pytest
from basicsr.utils import registry
from child import OF_BASICSR, run_code

import bidiffsr_arch
from bidiffsr_arch.errors import InputError

NAMES = {
    "arch": ["BBCUNet", "BIDiffSRUNet", "SR3UNet"],
    "model": ["BIDiffSRModel", "BicubicModel"],
    "dataset": ["MultiPairedImageDataset"],
    "metric": ["calculate_iqa", "calculate_lpips", "calculate_params", "calculate_ops"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_import_registers(kind):
    table = getattr(registry, f"{kind.upper()}_REGISTRY")
    assert all(table.get(name).__module__.startswith("bidiffsr_arch.") for name in NAMES[kind])


def test_registering_again_is_harmless():
    before = list(registry.ARCH_REGISTRY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bidiffsr_arch.register()
    assert list(registry.ARCH_REGISTRY) == before


def test_an_earlier_registration_is_kept_with_one_warning():
    done = run_code(
        "import bidiffsr_arch\n"
        "from basicsr.utils.registry import ARCH_REGISTRY\n"
        "other = type('BIDiffSRUNet', (), {'__module__': 'other_package.archs'})\n"
        "ARCH_REGISTRY._obj_map['BIDiffSRUNet'] = other\n"
        "bidiffsr_arch.register()\n"
        "assert ARCH_REGISTRY.get('BIDiffSRUNet') is other\n",
        imported=OF_BASICSR,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "already registered" in line]
    said = "BIDiffSRUNet is already registered by other_package.archs, and is not replaced"
    assert len(lines) == 1 and said in lines[0]


REFERENCE = """
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
@ARCH_REGISTRY.register()
class BIDiffSRUNet: pass
@MODEL_REGISTRY.register()
class BIDiffSRModel: pass
"""


def test_the_reference_is_imported_after_this_package_as_well_as_before(tmp_path):
    """Its classes have the same names as this package's and replace them, with a warning for each."""
    (tmp_path / "reference.py").write_text(REFERENCE)
    done = run_code(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import bidiffsr_arch, basicsr, reference\n"
        "from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY\n"
        "print(*(registry.get(name).__module__ for registry, name in\n"
        "        ((ARCH_REGISTRY, 'BIDiffSRUNet'), (MODEL_REGISTRY, 'BIDiffSRModel'), (ARCH_REGISTRY, 'SR3UNet'))))\n"
        "bidiffsr_arch.register()\n"
        "assert ARCH_REGISTRY.get('BIDiffSRUNet').__module__ == 'reference'\n",
        imported=OF_BASICSR,
    )
    assert done.stdout.split() == ["reference", "reference", "bidiffsr_arch.archs.sr3_arch"], done.stderr
    assert done.stderr.count("is registered by reference in place of bidiffsr_arch") == 2


def test_two_other_packages_cannot_share_a_name():
    first, second = (type("Twice", (), {"__module__": name}) for name in ("one", "two"))
    registry.ARCH_REGISTRY.register(first)
    try:
        with pytest.raises(AssertionError, match="already registered"):
            registry.ARCH_REGISTRY.register(second)
    finally:
        del registry.ARCH_REGISTRY._obj_map["Twice"]


@pytest.mark.parametrize("kind", [InputError, KeyError])
def test_an_unknown_name_is_wrong_input_and_a_key_error(kind):
    """Plugins catch BasicSR's KeyError."""
    with pytest.raises(kind, match=r"no arch named 'BIDiffSRUnet'; did you mean 'BIDiffSRUNet'\? Known: ") as caught:
        registry.ARCH_REGISTRY.get("BIDiffSRUnet")
    assert str(caught.value).startswith("no arch named")


def test_import_stays_light():
    done = run_code(
        "import sys, bidiffsr_arch; print(*{'diffusers', 'lpips', 'numba', 'matplotlib', 'skimage'} & set(sys.modules))"
    )
    assert done.stdout.split() == [], done.stdout

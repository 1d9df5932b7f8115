"""Importing the package registers it, once, and leaves others' registrations alone."""

import subprocess
import sys
import warnings

import pytest
from basicsr.utils import registry

import bidiffsr_arch

NAMES = {
    "arch": ["BBCUNet", "BIDiffSRUNet", "SR3UNet"],
    "model": ["BIDiffSRModel", "BicubicModel"],
    "dataset": ["MultiPairedImageDataset"],
    "metric": ["calculate_lpips", "calculate_params", "calculate_ops"],
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


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_an_earlier_registration_stays_and_one_warning_says_so():
    done = run(
        "import bidiffsr_arch\n"
        "from basicsr.utils.registry import ARCH_REGISTRY\n"
        "other = type('BIDiffSRUNet', (), {'__module__': 'other_package.archs'})\n"
        "ARCH_REGISTRY._obj_map['BIDiffSRUNet'] = other\n"
        "bidiffsr_arch.register()\n"
        "assert ARCH_REGISTRY.get('BIDiffSRUNet') is other\n"
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "already registered" in line]
    assert len(lines) == 1 and "BIDiffSRUNet is already registered by other_package.archs, which stays" in lines[0]


def test_import_stays_light():
    done = run(
        "import sys, bidiffsr_arch; print(*{'diffusers', 'lpips', 'numba', 'matplotlib', 'skimage'} & set(sys.modules))"
    )
    assert done.stdout.split() == [], done.stdout

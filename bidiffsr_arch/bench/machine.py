"""The machine on which `basicsr bench` runs, and how its newest instructions are left out."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

AFTER_AVX2 = ("avx512", "avx10", "evex512", "amx")
"""How LLVM's names of instruction sets begin that came after AVX2 and widen vectors."""


def machine(backend: str) -> dict[str, str | int | None]:
    """Where a measurement was made."""
    names = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = None
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba,
        "python": platform.python_version(),
        "backend": backend,
    }


def without_avx512() -> dict[str, str]:
    """Environment variables with which Numba, oneDNN and ATen use AVX2 at most; none where the CPU has no AVX-512."""
    try:
        import llvmlite.binding
    except ImportError:
        return {}
    features = llvmlite.binding.get_host_cpu_features()
    if not features.get("avx512f"):
        return {}
    kept = {name: present and not name.startswith(AFTER_AVX2) for name, present in features.items()}
    return {
        "NUMBA_CPU_FEATURES": ",".join(f"{'+' if present else '-'}{name}" for name, present in sorted(kept.items())),
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []

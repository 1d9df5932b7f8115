"""Cures of several processes on machines without a GPU."""

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from bidiffsr_arch.compat.patch import contains, replace, replace_method


def distributed_start() -> bool:
    """--launcher pytorch divides by the number of GPUs and wants nccl: without a GPU the processes talk by gloo."""
    stock = dist_util._init_dist_pytorch
    if not contains(stock, "rank % num_gpus"):
        return False

    def init_dist_pytorch(backend: str, **kwargs) -> None:
        if torch.cuda.is_available():
            stock(backend, **kwargs)
        else:
            distributed.init_process_group(backend="gloo", **kwargs)

    replace(stock, init_dist_pytorch)
    return True


def distributed_model() -> bool:
    """model_to_device asks for a CUDA device in distributed runs: a network on the CPU is wrapped without one."""
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

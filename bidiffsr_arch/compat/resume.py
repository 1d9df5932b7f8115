"""Cures of going on from a saved state."""

from pathlib import Path

import torch
from basicsr import train
from basicsr.utils import check_resume

from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.errors import InputError


def _load(path: Path) -> dict:
    """A training state, on the CPU and with torch's safe loader (an optimizer moves its own part to its device)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a truncated zip or a foreign pickle may raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} does not load as a training state ({reason[0]})") from error
    if not isinstance(state, dict) or not {"epoch", "iter", "optimizers", "schedulers"} <= state.keys():
        raise InputError(f"{path} does not load as a training state (expected epoch, iter, optimizers, schedulers)")
    return state


def _missing_networks(opt: dict, iteration: str) -> list[str]:
    ignored = opt["path"].get("ignore_resume_networks") or ()
    labels = [key.removeprefix("network_") for key in opt if key.startswith("network_") and key not in ignored]
    files = [Path(opt["path"]["models"], f"net_{label}_{iteration}.pth") for label in labels]
    return [str(file) for file in files if not file.is_file()]


def _newest(opt: dict) -> tuple[Path, dict] | None:
    """The newest state of this experiment that loads and has its networks; the others are named on the way."""
    states = [path for path in Path(opt["path"]["training_states"]).glob("*.state") if path.stem.isdigit()]
    for path in sorted(states, key=lambda path: int(path.stem), reverse=True):
        if missing := _missing_networks(opt, path.stem):
            print(f"not resuming from {path}: {missing[0]} is missing", flush=True)
            continue
        try:
            return path, _load(path)
        except InputError as error:
            print(f"not resuming: {error}", flush=True)
    return None


def resume_state() -> bool:
    """Resuming needs CUDA, --auto_resume looks in ./experiments: a CPU is enough, and path.experiments_root is used."""
    stock = train.load_resume_state
    if not contains(stock, "torch.cuda.current_device()"):
        return False

    def load_resume_state(opt: dict) -> dict | None:
        if opt["auto_resume"]:
            found = _newest(opt)
        elif path := opt["path"].get("resume_state"):
            if not Path(path).is_file():
                raise InputError(f"path: resume_state: {path} does not exist; name a .state file, or ~ for none")
            found = Path(path), _load(Path(path))
        else:
            found = None
        if found is None:
            return None
        path, state = found
        opt["path"]["resume_state"] = str(path)
        check_resume(opt, state["iter"])
        return state

    replace(stock, load_resume_state)
    return True

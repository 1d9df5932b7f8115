"""BasicSR is patched and registered with whichever import comes first, and torch waits as the package chose."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from child import OF_BASICSR, run_code

from bidiffsr_arch import threads
from bidiffsr_arch.import_hooks import ImportHooks

COMPLETE = """
from basicsr.models.base_model import BaseModel
from basicsr.utils import registry
from bidiffsr_arch import compat
assert "BIDiffSRUNet" in registry.ARCH_REGISTRY and "BIDiffSRModel" in registry.MODEL_REGISTRY
assert "MultiPairedImageDataset" in registry.DATASET_REGISTRY and "calculate_lpips" in registry.METRIC_REGISTRY
names = [name for name, _ in compat.applied()]
assert {"unknown_names", "command_line", "silent_crops", "whole_checkpoints", "resumed_epochs"} <= set(names)
assert BaseModel.save_network.__module__.startswith("bidiffsr_arch."), BaseModel.save_network
print("complete")
"""
# What a stock `import basicsr` needs on today's torchvision.
STOCK_BASICSR = """
from bidiffsr_arch import compat
compat.apply(compat.BEFORE_BASICSR)
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ImportHooks"]
import basicsr
for name in [name for name in sys.modules if name.split(".")[0] == "bidiffsr_arch"]:
    del sys.modules[name]
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import bidiffsr_arch, basicsr.models.sr_model",
        "from bidiffsr_arch.compat.data import seed_worker",
        "from bidiffsr_arch.training.bidiffsr_model import BIDiffSRModel",
        "from bidiffsr_arch.training import MultiPairedImageDataset",
        "from bidiffsr_arch import register; register()",
        f"{STOCK_BASICSR}\nimport bidiffsr_arch",
    ],
)
def test_every_first_import_patches_and_registers(imports):
    done = run_code(f"{imports}\n{COMPLETE}", imported=OF_BASICSR)
    assert done.stdout == "complete\n", done.stderr
    assert not done.stderr


def test_nothing_heavy_is_imported_with_the_package():
    done = run_code(
        "import bidiffsr_arch\n"
        "heavy = 'torch numpy cv2 PIL yaml basicsr diffusers lpips numba matplotlib skimage scipy torchvision'\n"
        "assert not set(heavy.split()) & set(sys.modules), set(heavy.split()) & set(sys.modules)\n"
        "assert set(bidiffsr_arch.__all__) <= set(dir(bidiffsr_arch))\n"
        "for name in bidiffsr_arch.__all__:\n"
        "    assert getattr(bidiffsr_arch, name) is not None\n"
        "assert 'basicsr' not in sys.modules\n"
        "bidiffsr_arch.no_such_name\n"
    )
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'bidiffsr_arch' has no attribute 'no_such_name'"


def test_without_basicsr_its_import_fails_as_usual():
    done = run_code(
        "import importlib.util, bidiffsr_arch\n"
        "try:\n"
        "    import basicsr.models\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name)\n"
        "try:\n"
        "    import bidiffsr_arch.training\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name)\n",
        blocked=("basicsr",),
    )
    assert done.stdout == "basicsr\nbasicsr\n", done.stderr


def test_a_basicsr_that_cannot_be_imported_fails_alike_each_time(tmp_path):
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr" / "__init__.py").write_text("import torch\nraise OSError('libGL.so.1 is missing')\n")
    done = run_code(
        "import bidiffsr_arch\n"
        "for attempt in range(2):\n"
        "    try:\n"
        "        import basicsr.models\n"
        "    except OSError as error:\n"
        "        print(error, 'basicsr' in sys.modules)\n"
        "bidiffsr_arch.compat.require_basicsr('`basicsr train`')\n",
        folder=tmp_path,
        imported=OF_BASICSR,
        PYTHONPATH=str(tmp_path),
    )
    assert done.stdout == "libGL.so.1 is missing False\n" * 2, done.stderr
    assert "InputError: `basicsr train` needs BasicSR, which cannot be imported (OSError: libGL" in done.stderr


# Of each data set's items, whether bidiffsr_arch was imported before the data set was unpickled in the worker.
SPAWNED = """
import sys
from functools import partial
from torch.utils.data import DataLoader
{first}
from basicsr.data.paired_image_dataset import PairedImageDataset

class Patched(PairedImageDataset):
    def __setstate__(self, state):
        self.__dict__ |= state
        self.imported = "bidiffsr_arch" in sys.modules

    def __getitem__(self, index):
        from basicsr.data import data_util
        assert data_util.paired_paths_from_folder.__module__.startswith("bidiffsr_arch.compat.")
        return self.imported

if __name__ == "__main__":
    import bidiffsr_arch
    from basicsr.data import worker_init_fn
    opt = dict(phase="val", scale=2, dataroot_gt="data/HR", dataroot_lq="data/LR", filename_tmpl="{{}}x2",
               io_backend=dict(type="disk"))
    start = partial(worker_init_fn, num_workers=1, rank=0, seed=0)
    for dataset in {datasets}:
        loader = DataLoader(dataset(opt), num_workers=1, multiprocessing_context="spawn", worker_init_fn=start)
        print(*(bool(batch) for batch in loader))
"""


@pytest.mark.parametrize(
    ("first", "datasets", "expected"),
    [
        ("import bidiffsr_arch", "[Patched, PairedImageDataset]", "True True True\n" * 2),
        (STOCK_BASICSR, "[Patched]", "False False False\n"),
    ],
)
def test_spawned_loader_workers_are_patched(first, datasets, expected, workplace):
    done = run_code(SPAWNED.format(first=first, datasets=datasets), folder=workplace, imported=OF_BASICSR)
    assert done.stdout == expected, done.stderr


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> str:
    """A module that can be imported, and fails as long as the file `broken` is there."""
    (tmp_path / "hooked_module.py").write_text(
        "import pathlib\nif pathlib.Path(__file__).with_name('broken').exists(): raise ImportError('broken')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "hooked_module"
    sys.modules.pop("hooked_module", None)


def test_a_hook_runs_around_the_first_import_that_succeeds(module, tmp_path):
    events = []

    @contextmanager
    def hook():
        events.append("before")
        yield
        events.append(sys.modules[module].__file__)

    hooks = ImportHooks({module: hook}, prerequisites={})
    hooks.install()
    broken = tmp_path / "broken"
    broken.touch()
    with pytest.raises(ImportError, match="broken"):
        __import__(module)
    assert events == ["before"] and hooks in sys.meta_path
    broken.unlink()
    imported = __import__(module)
    assert events == ["before", "before", imported.__file__] and hooks not in sys.meta_path
    assert type(imported.__loader__).__name__ == type(imported.__spec__.loader).__name__ == "SourceFileLoader"
    ImportHooks({module: hook}, prerequisites={}).install()
    assert events[3:] == ["before", imported.__file__], "it is imported already"


POLICY = """
import json, os
import bidiffsr_arch
import torch, numba
from bidiffsr_arch import threads
numba.get_num_threads()  # loads Numba's threads
after = os.environ.get("GOMP_SPINCOUNT")
print(json.dumps({"policies": dict(threads.policies()), "layer": numba.threading_layer(), "after": after}))
"""
OURS = f"GOMP_SPINCOUNT={threads.SPIN_COUNT}, set by bidiffsr_arch"


@pytest.mark.parametrize(
    ("first", "environment", "expected"),
    [
        ("", {}, {"torch": OURS, "numba": OURS}),
        ("import torch", {}, {"torch": "imported before bidiffsr_arch", "numba": OURS}),
        ("", {"OMP_WAIT_POLICY": "active"}, dict.fromkeys(("torch", "numba"), "OMP_WAIT_POLICY=active, from the env")),
        ("import torch", {"GOMP_SPINCOUNT": "7"}, dict.fromkeys(("torch", "numba"), "GOMP_SPINCOUNT=7, from the env")),
    ],
)
def test_a_waiting_policy_is_set_if_there_is_none(monkeypatch, first, environment, expected):
    for name in threads.USERS_CHOICE:
        monkeypatch.delenv(name, raising=False)
    forget = "import os\ndel os.environ['OMP_NUM_THREADS']\n"
    done = run_code(forget + first + POLICY, OMP_DISPLAY_ENV="verbose", **environment)
    found = json.loads(done.stdout)
    if found["layer"] != "omp":
        del expected["numba"]
    assert found["policies"].keys() == expected.keys()
    assert all(found["policies"][library].startswith(text) for library, text in expected.items()), found
    assert found["after"] == environment.get("GOMP_SPINCOUNT"), "child processes inherit the user's environment"
    if "GOMP_SPINCOUNT" in done.stderr:  # this OpenMP is GNU's, and lists what it has read
        ours = sum(text == OURS for text in expected.values())
        assert done.stderr.count(f"GOMP_SPINCOUNT = '{threads.SPIN_COUNT}'") == ours


@pytest.mark.parametrize("name", threads.USERS_CHOICE)
def test_a_policy_from_the_environment_is_kept(monkeypatch, name):
    for other in threads.USERS_CHOICE:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr(threads, "_policies", {})
    before = dict(os.environ)
    with threads.waiting_policy("torch"):
        assert dict(os.environ) == before
    assert dict(os.environ) == before
    assert threads.policies() == [("torch", f"{name}=2, from the environment")]

"""The shipped option files: readable by stock BasicSR, complete, and one for every row of the paper's tables."""

import pytest
import torch
import yaml

from bidiffsr_arch import archs
from bidiffsr_arch.config.diffusion import BetaSchedule
from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.shipped import shipped, shipped_path
from bidiffsr_arch.config.yaml import dump_options, read_yaml
from bidiffsr_arch.diffusion.schedule import Diffusion
from bidiffsr_arch.metrics.published import PUBLISHED
from bidiffsr_arch.networks import is_direct

FLAT = [f"{kind}_BIDiffSR_x{scale}" for kind in ("train", "test") for scale in (2, 4)] + ["demo_BIDiffSR_x4"]
COMPETITORS = ("BNN", "DoReFa", "XNOR", "IRNet", "ReActNet", "BBCU")
DIRECT = [f"{kind}_BBCUNet_x{scale}" for kind in ("train", "test") for scale in (2, 4)]
SWITCHES = {
    "breakdown_baseline": dict(rescale="pixelshuffle", fusion="concat", identity=False, tar=False, taa=False),
    "breakdown_identity": dict(rescale="pixelshuffle", fusion="concat", tar=False, taa=False),
    "breakdown_cp": dict(fusion="concat", tar=False, taa=False),
    "breakdown_cs": dict(tar=False, taa=False),
    "breakdown_tar_taa": {},
    "fusion_add": dict(fusion="add", tar=False, taa=False),
    "fusion_concat": dict(fusion="concat", tar=False, taa=False),
    "fusion_split": dict(fusion="split", tar=False, taa=False),
    "fusion_cs": dict(tar=False, taa=False),
    "pairs_1": dict(dynamic_group=1),
    "pairs_2": dict(dynamic_group=2),
    "pairs_5": dict(dynamic_group=5),
    "timestep_aware_without": dict(tar=False, taa=False),
    "timestep_aware_in": dict(taa=False),
    "timestep_aware_out": dict(tar=False),
    "timestep_aware_all": {},
}


@pytest.fixture(autouse=True)
def no_benchmark_root(monkeypatch):
    monkeypatch.delenv("BIDIFFSR_BENCHMARK_ROOT", raising=False)


@pytest.mark.parametrize("name", shipped())
def test_every_file_loads_and_is_complete_once_written(name):
    options = load_options(shipped_path(name))
    assert yaml.safe_load(dump_options(options)) == options
    border = options["val"]["metrics"]["psnr"]["crop_border"]
    assert border == options["val"]["metrics"]["ssim"]["crop_border"] == options["scale"]
    if options["network_g"]:
        arguments = dict(options["network_g"])
        with torch.device("meta"):
            network = getattr(archs, arguments.pop("type"))(**arguments)
        if is_direct(network):
            return
        assert Diffusion(BetaSchedule.read(options["beta_schedule"])).total_step == arguments.get("total_step", 2000)
    assert options["val"]["metrics"]["lpips"] == {"type": "calculate_lpips", "crop_border": 0, "better": "lower"}


@pytest.mark.parametrize("name", FLAT)
def test_flat_files_mean_the_same_to_stock_basicsr(name):
    text = shipped_path(name).read_text()
    assert "base:" not in text
    assert yaml.safe_load(text) == load_options(shipped_path(name))  # a bare 1e-4 would be a text to the left


def test_every_row_of_the_paper_has_its_files():
    files = {name: load_options(shipped_path(name)).get("paper_row") for name in shipped()}
    rows = {name: row for name, row in files.items() if row is not None}
    assert set(rows.values()) == set(PUBLISHED) | {"table2/Bicubic"}
    for scale in (2, 4):
        for method in ("SR3", "BI-DiffSR", *COMPETITORS):
            for kind in ("train", "test"):
                assert rows.pop(f"{kind}_{method.replace('-', '')}_x{scale}") == f"table2/{method}"
        assert rows.pop(f"test_Bicubic_x{scale}") == "table2/Bicubic"
    assert sorted(rows) == sorted(f"ablation/{name}" for name in SWITCHES)


@pytest.mark.parametrize("name", SWITCHES)
def test_an_ablation_changes_its_switches_and_nothing_else(name):
    whole, ablation = load_options(shipped_path("train_BIDiffSR_x2")), load_options(shipped_path(f"ablation/{name}"))
    assert ablation["network_g"] == whole["network_g"] | SWITCHES[name]
    assert ablation["train"] == whole["train"]
    assert ablation["datasets"]["train"] == whole["datasets"]["train"]
    assert ablation["datasets"]["val"]["name"] == "Manga109"


@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("method", COMPETITORS)
def test_a_competitor_is_the_baseline_with_its_binarizer(method, scale, kind):
    base, options = (load_options(shipped_path(f"{kind}_{name}_x{scale}")) for name in ("BIDiffSR", method))
    switches = dict(binarizer=method.lower(), rescale="pixelshuffle", fusion="concat", tar=False, taa=False)
    assert options["network_g"] == base["network_g"] | switches
    assert options["datasets"] == base["datasets"]
    if kind == "test":
        trained = load_options(shipped_path(f"train_{method}_x{scale}"))["name"]
        assert options["path"]["pretrain_network_g"] == f"experiments/{trained}/models/net_g_latest.pth"
        assert options["expected"] is None  # their UNet is not disclosed: nothing published can be expected


def test_training_and_testing_agree_on_the_network():
    for name in shipped():
        if name.startswith("test_") and "Bicubic" not in name:
            trained = load_options(shipped_path(name.replace("test_", "train_")))
            assert trained["network_g"] == load_options(shipped_path(name))["network_g"]


@pytest.mark.parametrize("scale", [2, 4])
def test_the_papers_recipe(scale):
    options = load_options(shipped_path(f"train_BIDiffSR_x{scale}"))
    train, data = options["train"], options["datasets"]["train"]
    assert data["gt_size"] // options["scale"] == 64
    assert train["total_iter"] == 1_000_000
    assert train["optim_g"] == {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert train["scheduler"]["gamma"] == 1
    schedule = options["beta_schedule"]
    assert (schedule["linear_start"], schedule["linear_end"]) == (1e-6, 1e-2)
    assert "diffuse" not in options  # the image itself, the model's default


@pytest.mark.parametrize("scale", [2, 4])
def test_benchmarks_are_in_the_references_folders(scale, monkeypatch):
    datasets = load_options(shipped_path(f"test_BIDiffSR_x{scale}"))["datasets"]
    assert [dataset["name"] for _, dataset in sorted(datasets.items())] == ["Set5", "B100", "Urban100", "Manga109"]
    for dataset in datasets.values():
        assert dataset["dataroot_gt"] == f"datasets/benchmark/{dataset['name']}/HR"
        assert dataset["dataroot_lq"] == f"datasets/benchmark/{dataset['name']}/LR_bicubic/X{scale}"
        is_manga = dataset["name"] == "Manga109"
        assert dataset["filename_tmpl"] == (f"{{}}_LRBI_x{scale}" if is_manga else f"{{}}x{scale}")
    monkeypatch.setenv("BIDIFFSR_BENCHMARK_ROOT", "/images")
    moved = load_options(shipped_path(f"test_BIDiffSR_x{scale}"))["datasets"]["test_1"]
    assert moved["dataroot_gt"] == "/images/Set5/HR"


@pytest.mark.parametrize("name", DIRECT)
def test_a_direct_network_upscales_by_its_files_scale(name):
    options = load_options(shipped_path(name))
    assert options["model_type"] == "SRModel" and not options.get("beta_schedule")
    assert options["network_g"]["upscale"] == options["scale"]
    data = [data for phase, data in options["datasets"].items()]
    assert all(entry["dataroot_lq"].endswith(f"/X{options['scale']}") for entry in data)
    if name.startswith("train"):
        assert options["datasets"]["train"]["gt_size"] // options["scale"] == 64


def test_every_base_is_shipped_too():
    for name in shipped():
        path = shipped_path(name)
        if "base" in read_yaml(path):
            assert (path.parent / read_yaml(path)["base"]).is_file()

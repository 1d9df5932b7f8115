"""Option files: values, errors, and the options that BasicSR gets."""

import re
from collections import OrderedDict

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.config.file import load_options
from bidiffsr_arch.config.yaml import dump_options, merged_options, read_yaml
from bidiffsr_arch.errors import InputError

SMALL = """\
name: small
model_type: BIDiffSRModel
scale: 4
num_gpu: 0
datasets:
  val: {name: Set5, type: PairedImageDataset, dataroot_gt: datasets/benchmark/Set5/HR, dataroot_lq: datasets/benchmarks}
network_g: {type: BIDiffSRUNet, inner_channel: 64}
path: {pretrain_network_g: ~}
val: {save_img: false}
"""

# Every key that an option file of the reference implementation has.
REFERENCE_KEYS = """\
name: train_BIDiffSR_x4
model_type: BIDiffSRModel
scale: 4
num_gpu: auto
manual_seed: 10
find_unused_parameters: True

datasets:
  train:
    task: SR
    name: DF2K
    type: MultiPairedImageDataset
    dataroot_gt: datasets/DF2K/HR
    dataroot_lq: datasets/DF2K/LR_bicubic/X4
    filename_tmpl: '{}x4'
    io_backend:
      type: disk
    gt_size: 256
    use_hflip: True
    use_rot: True
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 4
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    task: SR
    name: Set5
    type: MultiPairedImageDataset
    dataroot_gt: datasets/benchmark/Set5/HR
    dataroot_lq: datasets/benchmark/Set5/LR_bicubic/X4
    filename_tmpl: '{}x4'
    io_backend:
      type: disk

network_g:
  type: BIDiffSRUNet
  in_channel: 6
  out_channel: 3
  inner_channel: 64
  norm_groups: 16
  channel_mults: [1, 2, 4, 8]
  attn_res: []
  res_blocks: 2
  dropout: 0.2
  image_size: 256
  fp_res: [256, 128]
  total_step: 2000
  dynamic_group: 5

beta_schedule:
  scheduler_type: DDIM
  schedule: linear
  n_timestep: 2000
  linear_start: !!float 1e-6
  linear_end: !!float 1e-2
  prediction_type: epsilon
  num_inference_steps: 50
  guidance_scale: 7.5
  is_guidance: False

path:
  pretrain_network_g: ~
  strict_load_g: false
  resume_state: ~

train:
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [500000]
    gamma: 1
  total_iter: 1000000
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: !!float 2e4
  save_img: False
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: true}
    ssim: {type: calculate_ssim, crop_border: 4, test_y_channel: true}
    lpips: {type: calculate_lpips, crop_border: 4, better: lower}

logger:
  print_freq: 500
  save_checkpoint_freq: !!float 2e4
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

dist_params:
  backend: nccl
  port: 29500
"""


@pytest.fixture(autouse=True)
def no_benchmark_root(monkeypatch):
    monkeypatch.delenv("BIDIFFSR_BENCHMARK_ROOT", raising=False)


@pytest.fixture
def write(tmp_path):
    def writer(text: str, name: str = "options.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return writer


def error_of(path, overrides=None) -> str:
    with pytest.raises(InputError) as caught:
        load_options(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reference_file_loads_unchanged(write):
    options = load_options(write(REFERENCE_KEYS))
    assert options == yaml.safe_load(REFERENCE_KEYS)
    assert list(options)[:3] == ["name", "model_type", "scale"]
    assert isinstance(options["train"]["optim_g"], OrderedDict)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2e4", 2e4),
        ("!!float 1e-4", 1e-4),
        ("!!float 2", 2.0),
        ("-1.5E+3", -1500.0),
        (".5e1", 5.0),
        ("1.", 1.0),
        ("10", 10),
        ("1e", "1e"),
        ("e4", "e4"),
        ("'1e-4'", "1e-4"),
        ("1e4x", "1e4x"),
        ("~", None),
        ("true", True),
        ("[1, 2e-3]", [1, 0.002]),
    ],
)
def test_values(write, text, value):
    got = read_yaml(write(f"a: {text}\n"))["a"]
    assert got == value
    assert type(got) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_every_float_survives_writing_and_reading(value):
    text = dump_options(OrderedDict(a=value))
    assert yaml.safe_load(text)["a"] == value  # stock reader
    assert load_text(text)["a"] == value
    assert load_text(f"a: {value!r}")["a"] == value  # Python's spelling, 1e-07 without a point among them


def load_text(text: str):
    from bidiffsr_arch.config.yaml import parse

    return parse(text, "text")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['echo no']\n", 2, "!!python/object/apply:os.system is refused"),
        ("a: !!python/name:os.system\n", 1, "!!python/name:os.system is refused"),
        ("a: !!python/tuple [1, 2]\n", 1, "!!python/tuple is refused"),
        ("a: !mine 1\n", 1, "!mine is refused"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is defined twice"),
        ("a: {x: 1, x: 2}\n", 1, "'x' is defined twice"),
        ("a: !!int x\n", 1, "cannot read 'x'"),
        ("a: 2024-13-45\n", 1, "cannot read '2024-13-45'"),
        ("a: [1\nb: 2\n", 2, "expected ',' or ']'"),
        ("a:\n  - &x {b: *x}\n", 2, "recursive"),
        ("1: a\n", 1, "expected a string as key, got 1"),
        ("? [a]\n: b\n", 1, "expected a string as key"),
    ],
)
def test_refused_yaml_names_file_and_line(write, text, line, said):
    path = write(text)
    message = error_of(path)
    assert message.startswith(f"{path} line {line}: ")
    assert said in message


def test_nothing_runs(write, tmp_path):
    marker = tmp_path / "ran"
    error_of(write(f"name: !!python/object/apply:os.mkdir ['{marker}']\n"))
    path = write(SMALL)
    error_of(path, [f"name=!!python/object/apply:os.mkdir ['{marker}']"])
    options = load_options(path, [f"name=__import__('os').mkdir('{marker}')"])
    assert options["name"].startswith("__import__")  # a text, nothing more
    error_of(path, [f"x\"]; __import__('os').mkdir('{marker}'); opt[\"y:z=1"])
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got nothing"),
        (b"- 1\n", "got list"),
        (b"just text\n", "got str"),
        (b"\xff\xfe\x00a", "UTF-8"),
        (b"a: \x01\n", "special characters"),
        (b"[" * 5000, "recursion"),
    ],
)
def test_not_an_option_file(tmp_path, content, said):
    path = tmp_path / "bad.yml"
    path.write_bytes(content)
    message = error_of(path)
    assert str(path) in message
    assert said in message


def test_missing_file_and_folder(tmp_path):
    assert "does not exist" in error_of(tmp_path / "none.yml")
    assert "cannot be read" in error_of(tmp_path)


@pytest.mark.parametrize("key", ["name", "model_type", "scale", "num_gpu", "datasets", "network_g", "path", "val"])
def test_missing_key_is_named(write, key):
    kept = [line for line in SMALL.splitlines(keepends=True) if not line.startswith(f"{key}:")]
    text = "".join(line for line in kept if key != "datasets" or not line.startswith("  "))
    assert key in error_of(write(text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("netwrok_g: {}", "did you mean 'network_g'?"),
        ("beta_shedule: {}", "did you mean 'beta_schedule'?"),
        ("residual_scle: 2", "did you mean 'residual_scale'?"),
        ("logger: 3", "expected `logger:` to hold keys"),
        ("train: [1]", "expected `train:` to hold keys"),
    ],
)
def test_wrong_top_level_key(write, line, said):
    assert said in error_of(write(f"{SMALL}{line}\n"))


@pytest.mark.parametrize(
    "line", ["network_d: {type: X}", "degraders: 3", "high_order_degradation: true", "gt_usm: true"]
)
def test_keys_of_other_models_are_accepted(write, line):
    assert line.split(":")[0] in load_options(write(f"{SMALL}{line}\n"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scale=0", "expected scale to be an integer of at least 1"),
        ("scale=2.5", "expected scale to be an integer of at least 1"),
        ("scale=true", "expected scale to be an integer of at least 1"),
        ("num_gpu=all", "expected num_gpu to be auto, or an integer of at least 0"),
        ("num_gpu=-1", "expected num_gpu to be auto, or an integer of at least 0"),
        ("network_g={inner_channel: 3}", "`type:`"),
        ("datasets:val=3", "`datasets: val:`"),
        ("datasets:val:name=~x", None),
    ],
)
def test_wrong_values(write, override, said):
    path = write(SMALL)
    if said is None:
        assert load_options(path, [override])["datasets"]["val"]["name"] == "~x"
    else:
        assert said in error_of(path, [override])


def test_bicubic_needs_no_network(write):
    text = SMALL.replace("BIDiffSRModel", "BicubicModel")
    options = load_options(write("".join(line for line in text.splitlines(True) if not line.startswith("network_g:"))))
    assert "network_g" not in options


def test_model_without_pairs_needs_no_scale(write):
    text = SMALL.replace("scale: 4\n", "").replace("PairedImageDataset", "FFHQDataset")
    assert "scale" not in load_options(write(text))


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("name=other", ["name"], "other"),
        ("val:save_img=true", ["val", "save_img"], True),
        ("val:pbar=True", ["val", "pbar"], True),  # a new key in a known place
        ("network_g:channel_mults=[1, 2]", ["network_g", "channel_mults"], [1, 2]),
        ("val:ema_decay=0.999", ["val", "ema_decay"], 0.999),
        ("val:lr=1e-4", ["val", "lr"], 1e-4),
        ("val:lr=!!float 1e-4", ["val", "lr"], 1e-4),
        ("path:pretrain_network_g=~", ["path", "pretrain_network_g"], None),
        ("path:pretrain_network_g=None", ["path", "pretrain_network_g"], None),
        ("path:pretrain_network_g=a=b.pth", ["path", "pretrain_network_g"], "a=b.pth"),
        (" val : save_img = 1 ", ["val", "save_img"], 1),
    ],
)
def test_overrides(write, override, keys, value):
    place = load_options(write(SMALL), [override])
    for key in keys:
        place = place[key]
    assert place == value
    assert type(place) is type(value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trian:total_iter=5", "there is no 'trian'"),
        ("netwrok_g:inner_channel=5", "the nearest key there is 'network_g'"),
        ("datasets:vla:name=5", "the nearest key there is 'val'"),
        ("scale:a=5", "'scale' is 4"),
        ("network_g", "expected key:key=value"),
        ("=5", "expected key:key=value"),
        ("val::a=5", "expected key:key=value"),
        ("val:a=[1", "--force_yml val:a=[1"),
    ],
)
def test_wrong_overrides(write, override, said):
    assert said in error_of(write(SMALL), [override])


def test_base_files_merge_in_a_chain(write):
    write(SMALL, "folder/root.yml")
    write("base: folder/root.yml\nnetwork_g: {inner_channel: 32, fusion: concat}\nval: ~\n", "middle.yml")
    child = write(
        "base: middle.yml\nname: child\nnetwork_g: {channel_mults: [1]}\ntrain: {total_iter: 1}\n", "child.yml"
    )
    options = load_options(child)
    assert options["name"] == "child"
    assert options["network_g"] == {
        "type": "BIDiffSRUNet", "inner_channel": 32, "fusion": "concat", "channel_mults": [1]
    }  # fmt: skip
    assert options["val"] is None
    assert "base" not in options
    assert options["scale"] == 4
    assert yaml.safe_load(dump_options(options)) == options
    assert "base" not in dump_options(options)


def test_replace_replaces_the_block_of_the_base(write):
    write(SMALL, "root.yml")
    child = write("base: root.yml\nnetwork_g: !replace {type: SR3UNet}\n", "child.yml")
    options = merged_options(child)
    assert options["network_g"] == {"type": "SR3UNet"}
    assert yaml.safe_load(dump_options(options)) == options
    assert read_yaml(write("a: !replace {b: 1}\n", "alone.yml")) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.yml": "base: a.yml\n"}, "a cycle"),
        ({"a.yml": "base: sub/b.yml\n", "sub/b.yml": "base: ../c.yml\n", "c.yml": "base: a.yml\n"}, "a cycle"),
        ({"a.yml": "base: none.yml\n"}, "`base: none.yml` does not exist"),
        ({"a.yml": "base: [b.yml]\n"}, "expected `base:` to name one option file"),
        ({"a.yml": "base: b.yml\n", "b.yml": "- 1\n"}, "b.yml: expected"),
    ],
)
def test_wrong_bases(write, files, said):
    paths = [write(text, name) for name, text in files.items()]
    assert said in error_of(paths[0])


def test_two_files_may_have_the_same_base(write):
    write(SMALL, "root.yml")
    write("base: root.yml\n", "b.yml")
    assert load_options(write("base: b.yml\n", "a.yml"))["name"] == "small"


def test_benchmark_root(write, monkeypatch):
    monkeypatch.setenv("BIDIFFSR_BENCHMARK_ROOT", "/images/")
    dataset = load_options(write(SMALL))["datasets"]["val"]
    assert dataset["dataroot_gt"] == "/images/Set5/HR"
    assert dataset["dataroot_lq"] == "datasets/benchmarks"  # another folder, not one in datasets/benchmark


def test_merge_keys_and_anchors(write):
    options = read_yaml(write("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"))
    assert options["b"] == {"x": 1, "y": 3}
    text = dump_options(options)
    assert not re.search("[&*]", text)
    assert yaml.safe_load(text) == options

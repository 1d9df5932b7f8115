"""BasicSR's command line and option files: the defect in the stock parse_options, then the patched one."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
import yaml
from basicsr import models, train
from basicsr import test as basicsr_test
from basicsr.utils import misc, options

from bidiffsr_arch.errors import InputError

OPTIONS = """\
# a comment that the experiment's copy keeps
name: run
model_type: SRModel
num_gpu: 0
manual_seed: 1
scale: 2
datasets:
  train: {{name: images, type: PairedImageDataset, dataroot_gt: {folder}, dataroot_lq: {folder}}}
network_g: {{type: SRVGGNetCompact, num_feat: 4, num_conv: 1, upscale: 2}}
path: {{pretrain_network_g: ~, resume_state: ~}}
train:
  optim_g: {{type: Adam, lr: !!float 1e-4}}
logger: {{print_freq: 1}}
"""
stock_parse_options = inspect.unwrap(options.parse_options)


class Command:
    """A function that runs parse_options on the option file, with edits and further arguments."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.file = folder / "run.yml"

    def __call__(self, *arguments, edit=(), parse_options=options.parse_options, is_train=True):
        text = OPTIONS.format(folder=self.folder)
        for old, new in [edit] if edit else []:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text)
        self.monkeypatch.setattr(sys, "argv", ["basicsr", "-opt", str(self.file), *arguments])
        return parse_options(str(self.folder), is_train)


@pytest.fixture
def command(tmp_path, monkeypatch) -> Command:
    return Command(tmp_path, monkeypatch)


def test_parse_options_is_patched_wherever_it_is_used():
    assert options.parse_options is train.parse_options is basicsr_test.parse_options is not stock_parse_options


def test_plain_files_are_read_as_by_stock_basicsr(command):
    stock, _ = command(parse_options=stock_parse_options)
    patched, args = command()
    patched.pop("session")  # added by this package
    assert patched == stock
    assert Path(args.opt).read_text() == command.file.read_text(), "comments reach the experiment's copy"
    assert sys.argv[2] == str(command.file)


def test_yaml_cannot_run_code(command):
    code = ("name: run", f"name: !!python/object/apply:os.mkdir [{command.folder / 'ran'}]")
    with pytest.raises(Exception, match=r".*"):  # stock runs it, and then stumbles over a name that is None
        command("--debug", edit=code, parse_options=stock_parse_options)
    assert (command.folder / "ran").is_dir()
    (command.folder / "ran").rmdir()
    with pytest.raises(InputError, match="python/object/apply"):
        command(edit=code)
    assert not (command.folder / "ran").exists()


def test_an_override_cannot_run_code(command):
    code = f'scale=[__import__("os").mkdir("{command.folder / "ran"}")]'
    command("--force_yml", code, parse_options=stock_parse_options)
    assert (command.folder / "ran").is_dir()
    (command.folder / "ran").rmdir()
    with pytest.raises(InputError):
        command("--force_yml", code)
    assert not (command.folder / "ran").exists()


def test_an_abbreviated_argument_cannot_run_code_either(command):
    code = f'scale=[__import__("os").mkdir("{command.folder / "ran"}")]'
    with pytest.raises(InputError):
        command("--force", code)
    assert not (command.folder / "ran").exists()


def test_a_bare_1e_4_is_a_number(command):
    bare = ("!!float 1e-4", "1e-4")
    opt, _ = command(edit=bare, parse_options=stock_parse_options)
    assert opt["train"]["optim_g"]["lr"] == "1e-4"
    opt, args = command(edit=bare)
    assert opt["train"]["optim_g"]["lr"] == 1e-4
    copy = yaml.load(Path(args.opt).read_text(), Loader=options.ordered_yaml()[0])  # noqa: S506 (our own text)
    assert copy["train"]["optim_g"]["lr"] == 1e-4, "stock BasicSR can read the experiment's copy"
    assert Path(args.opt).name == "run.yml"


def test_overrides_reach_the_options_and_the_copy(command):
    opt, args = command("--force_yml", "train:optim_g:lr=2e-3", "scale=3")
    assert (opt["train"]["optim_g"]["lr"], opt["scale"], opt["datasets"]["train"]["scale"]) == (2e-3, 3, 3)
    assert args.force_yml == ["train:optim_g:lr=2e-3", "scale=3"]
    assert yaml.safe_load(Path(args.opt).read_text())["scale"] == 3


@pytest.mark.parametrize("spelling", ["--local-rank=1", "--local_rank=1"])
def test_both_spellings_of_the_local_rank(command, spelling):
    _, args = command(spelling, "--auto_resume", "--debug")
    assert (args.local_rank, args.auto_resume, args.debug) == (1, True, True)


def test_the_local_rank_of_the_environment(command, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command("--local-rank=1", parse_options=stock_parse_options)
    assert "unrecognized arguments: --local-rank" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert command()[1].local_rank == 3


@pytest.mark.parametrize(("is_train", "root"), [(True, "experiments_root"), (False, "results_root")])
def test_roots_of_the_option_file_are_kept(command, is_train, root):
    own = ("resume_state: ~", f"resume_state: ~, {root}: elsewhere/run/")
    stock, _ = command(edit=own, parse_options=stock_parse_options, is_train=is_train)
    assert "elsewhere" not in stock["path"][root]
    path = command(edit=own, is_train=is_train)[0]["path"]
    assert (path[root], path["log"], path["visualization"]) == (
        "elsewhere/run", "elsewhere/run", "elsewhere/run/visualization")  # fmt: skip
    assert not is_train or path["training_states"] == "elsewhere/run/training_states"
    default = command(is_train=is_train)[0]["path"]
    assert default[root] == str(command.folder / ("experiments" if is_train else "results") / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the defect shows on machines without CUDA")
def test_a_missing_gpu_is_reported(command):
    assert command(edit=("num_gpu: 0", "num_gpu: 1"), parse_options=stock_parse_options)[0]["num_gpu"] == 1
    with pytest.raises(InputError, match=r"num_gpu: 1 needs CUDA.* set it to 0 or auto"):
        command(edit=("num_gpu: 0", "num_gpu: 1"))
    assert command(edit=("num_gpu: 0", "num_gpu: auto"))[0]["num_gpu"] == 0


@pytest.mark.parametrize("key", ["dataroot_gt", "dataroot_lq", "meta_info_file"])
def test_missing_data_is_named_before_anything_is_made(command, key):
    missing = ("type: PairedImageDataset", f"type: PairedImageDataset, {key}: nowhere/HR")
    text = OPTIONS.replace(f"{key}: {{folder}}", "io_backend: {{type: disk}}")  # so that no key stands there twice
    command.monkeypatch.setitem(globals(), "OPTIONS", text)
    command(edit=missing, parse_options=stock_parse_options)
    with pytest.raises(InputError, match=f"datasets: train: {key}: nowhere/HR does not exist"):
        command(edit=missing)


@pytest.mark.parametrize("make", [inspect.unwrap(misc.make_exp_dirs), misc.make_exp_dirs], ids=["stock", "patched"])
def test_unknown_path_keys_do_not_become_folders(command, make, monkeypatch):
    monkeypatch.chdir(command.folder)
    opt, _ = command(edit=("resume_state: ~", "resume_state: ~, pretrained_network_g: weights.pth"))
    make(opt)
    assert (command.folder / "experiments/run/training_states").is_dir()
    assert (command.folder / "weights.pth").is_dir() == (make is not misc.make_exp_dirs)
    assert train.make_exp_dirs is misc.make_exp_dirs


def test_runs_that_are_restarted_within_a_second_keep_all_earlier_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(misc, "get_time_str", lambda: "now")
    run, stock = tmp_path / "run", inspect.unwrap(misc.mkdir_and_rename)

    def begin(make) -> None:
        make(str(run))
        (run / "log").touch()

    begin(stock)
    begin(stock)
    with pytest.raises(OSError, match="not empty"):
        begin(stock)
    begin(misc.mkdir_and_rename)
    begin(misc.mkdir_and_rename)
    names = ["run", "run_archived_now", "run_archived_now_2", "run_archived_now_3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all((tmp_path / name / "log").exists() for name in names)


@pytest.mark.parametrize(("model", "key"), [("SRGANModel", "network_d"), ("SRModel", "train"), ("SRModel", "path")])
def test_a_key_that_a_model_lacks_is_named(model, key):
    network = dict(type="SRVGGNetCompact", num_feat=4, num_conv=1, upscale=2)
    opt = dict(model_type=model, num_gpu=0, is_train=True, dist=False, rank=0, path={}, network_g=network)
    opt |= dict(train=dict(ema_decay=0))
    opt.pop(key, None)
    with pytest.raises(KeyError):
        inspect.unwrap(models.build_model)(opt)
    with pytest.raises(InputError, match=f"expected the key '{key}' for model_type: {model}"):
        models.build_model(opt)

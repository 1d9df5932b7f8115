"""Packed files: contents, errors, and the command that writes them."""

import argparse
import json
import os
import random

import pytest
import torch
import yaml
from safetensors import safe_open

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import bench as bench_command
from bidiffsr_arch.cli import main
from bidiffsr_arch.cli import pack as pack_command
from bidiffsr_arch.description import TENSOR
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.files import digest
from bidiffsr_arch.networks import load_weights
from bidiffsr_arch.packed import Description, PackedUNet, load_packed, load_sets, pack, save_packed
from bidiffsr_arch.packed.file_format import with_checksum

TINY = dict(
    type="BIDiffSRUNet",
    inner_channel=8,
    norm_groups=4,
    channel_mults=[1, 2],
    res_blocks=1,
    image_size=16,
    fp_res=[16],
    total_step=100,
    dynamic_group=3,
)


def tiny(seed: int = 0) -> BIDiffSRUNet:
    torch.manual_seed(seed)
    return BIDiffSRUNet(**{key: value for key, value in TINY.items() if key != "type"}).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (*torch.rand(2, 1, 3, 8, 12, generator=generator), torch.tensor([40]))


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "net.safetensors"
    save_packed(pack(tiny(), "torch"), path, Description(TINY, scale=4, steps=7, data_range=[-1, 1]))
    return path


def contents(path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def assert_same(a: PackedUNet, b: PackedUNet) -> None:
    """The same tensors to the bit; results to rounding, which in torch depends on where in memory a tensor starts."""
    torch.testing.assert_close(a.state, b.state, rtol=0, atol=0)
    torch.testing.assert_close(a(*inputs()), b(*inputs()), rtol=1e-4, atol=1e-5)


def test_round_trip(written):
    network, description = load_packed(written, "torch")
    assert_same(network, pack(tiny(), "torch"))
    assert description == Description(TINY, scale=4, steps=7, data_range=[-1, 1])
    assert description.options["data_range"] == [-1, 1] and "network_g" not in description.options


def test_a_file_without_a_noise_schedule_is_sampled_by_the_default_one(written):
    weights = load_weights(written)
    assert not weights.is_direct and weights.options["beta_schedule"] == {"num_inference_steps": 7}


def test_patches_are_in_the_file(tmp_path):
    options = TINY | {"patch_size": 2, "input_scale": 0.25, "output_scale": 0.5}
    torch.manual_seed(0)
    network = pack(BIDiffSRUNet(**{key: value for key, value in options.items() if key != "type"}).eval(), "torch")
    path = tmp_path / "patches.safetensors"
    save_packed(network, path, Description(options))
    loaded, description = load_packed(path, "torch")
    assert_same(loaded, network)
    assert (loaded.multiple, description.network_g) == (4, options)


def test_one_bit_per_binary_weight(written):
    network = tiny()
    binary = {name: m for name, m in network.named_modules() if type(m).__name__ == "BinaryWeightConv2d"}
    positions = sum(m.weight.numel() for m in binary.values())
    filters = sum(m.out_channels for m in binary.values())
    tensors, _ = contents(written)
    bits = sum(tensors[f"{name}.bits"].nbytes for name in binary)
    assert positions / 8 <= bits < positions / 8 + filters
    others = sum(p.nbytes for p in network.parameters()) - 4 * positions
    tensors.pop(TENSOR)  # the description
    assert sum(tensor.nbytes for tensor in tensors.values()) == bits + others + 4 * filters


def test_half(written, tmp_path):
    path = tmp_path / "half.safetensors"
    assert save_packed(pack(tiny(), "torch"), path, Description(TINY), half=True) < written.stat().st_size
    network, _ = load_packed(path, "torch")
    exact = pack(tiny(), "torch").state
    for name, tensor in network.state.items():
        torch.testing.assert_close(tensor, exact[name], rtol=1e-3, atol=1e-4)  # same type, too
    large = tiny()
    large.downs[0].bias.data[0] = 1e6
    with pytest.raises(InputError, match=r"range of float16, got larger ones in downs\.0\.bias"):
        save_packed(pack(large, "torch"), tmp_path / "large.safetensors", Description(TINY), half=True)


def test_never_overwrites_or_leaves_half_a_file(written, monkeypatch):
    before = written.read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        save_packed(pack(tiny(1), "torch"), written, Description(TINY))

    def fails(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="disk full"):
            save_packed(pack(tiny(1), "torch"), written, Description(TINY), overwrite=True)
    assert written.read_bytes() == before and [p.name for p in written.parent.iterdir()] == [written.name]
    save_packed(pack(tiny(1), "torch"), written, Description(TINY), overwrite=True)
    assert written.read_bytes() != before


def test_the_file_has_the_permissions_of_the_umask(tmp_path):
    (tmp_path / "any").touch()
    save_packed(pack(tiny(0), "torch"), tmp_path / "a.safetensors", Description(TINY))
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


REFUSED = {
    "version 3": lambda t, m: m.update(version="3"),
    "another safetensors file": lambda t, m: m.pop("format"),
    r"lacks downs\.0\.bias": lambda t, m: t.pop("downs.0.bias"),
    "unknown extra": lambda t, m: t.update(extra=torch.zeros(1)),
    r"shape \(8,\), got \(4,\)": lambda t, m: t.update({"downs.0.bias": torch.zeros(4)}),
    r"real numbers, got torch\.uint8": lambda t, m: t.update({"downs.0.bias": torch.zeros(8, dtype=torch.uint8)}),
    "description in the header": lambda t, m: m.update(description="{"),
    r"\(expected the key `network_g:`, found none": lambda t, m: m.update(description='{"scale": 2}'),
    r"perceptual: expected the key `network_g:`, found none": lambda t, m: m.update(
        description=json.dumps({"network_g": TINY, "sets": {"perceptual": {"steps": 4}}})
    ),
    "options of BIDiffSRUNet": lambda t, m: m.update(description=json.dumps({"network_g": {"depth": 3}})),
    "tensors of network_g": lambda t, m: m.update(
        description=json.dumps({"network_g": TINY | {"channel_mults": [1, 2, 4]}})
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message, written):
    tensors, metadata = contents(written)
    REFUSED[message](tensors, metadata)
    written.write_bytes(with_checksum(tensors, metadata))
    with pytest.raises(InputError, match=message) as caught:
        load_packed(written)
    assert "\n" not in str(caught.value)


def test_refuses_every_flipped_bit(written):
    """In the length of the header, names, offsets, options, checksum or numbers."""
    content = written.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    header = [draw.randrange(8 * start) for _ in range(400)]
    whole = [draw.randrange(8 * len(content)) for _ in range(200)]
    seals = [8 * (content.index(b'"sha256":"') + i) + draw.randrange(8) for i in range(76)]
    for place in [*range(64), *header, *seals, *whole]:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        written.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            load_packed(written, "torch")
        assert str(written) in str(caught.value) and "\n" not in str(caught.value), f"bit {place}: {caught.value}"


def test_refuses_damage(written, tmp_path):
    content = bytearray(written.read_bytes())
    content[-3] ^= 16
    (tmp_path / "flipped.safetensors").write_bytes(content)
    (tmp_path / "short.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_bytes(b"hello")
    for name, message in (("flipped", "damaged"), ("short", "could not read"), ("text", "could not read")):
        with pytest.raises(InputError, match=message):
            load_packed(tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="no such file"):
        load_packed(tmp_path / "none.safetensors")


@pytest.fixture
def command(tmp_path):
    """Run `basicsr pack` on a checkpoint whose two networks differ."""
    torch.save({"params": tiny(0).state_dict(), "params_ema": tiny(1).state_dict()}, tmp_path / "net.pth")
    options = dict(
        name="tiny",
        model_type="BIDiffSRModel",
        scale=4,
        num_gpu=0,
        datasets={},
        path={"results_root": None},
        network_g=TINY,
        val={"save_img": False},
        diffuse="residual",
        beta_schedule=dict(scheduler_type="DDIM", schedule="linear", n_timestep=100, num_inference_steps=5),
    )

    def run(*arguments: str, **changes):
        (tmp_path / "options.yml").write_text(yaml.safe_dump(options | changes))
        parser = argparse.ArgumentParser()
        pack_command.add_arguments(parser)
        where = [str(tmp_path / "net.pth"), "-opt", str(tmp_path / "options.yml")]
        pack_command.run(parser.parse_args([*where, "-o", str(tmp_path / "out.safetensors"), *arguments]))
        return load_packed(tmp_path / "out.safetensors", "torch")

    return run


def test_command(command, tmp_path, capsys):
    network, description = command()
    assert "out.safetensors" in capsys.readouterr().out
    assert_same(network, pack(tiny(1), "torch"))
    assert description.network_g == TINY and description.scale == 4 and description.diffuse == "residual"
    assert description.steps == 5 and description.residual_scale == 2 and description.params == "params_ema"
    assert description.source == "net.pth" and description.source_sha256 == digest(tmp_path / "net.pth")

    with pytest.raises(InputError, match="--overwrite"):
        command()
    network, description = command("--overwrite", "--params", "params", "--half")
    assert description.params == "params"
    bias = tiny(0).state_dict()["downs.0.bias"]
    torch.testing.assert_close(network.state["downs.0.bias"], bias, rtol=1e-3, atol=1e-4)


def test_a_file_of_two_sets(tmp_path):
    """Each with its own options; what both share is stored once."""
    first, second = tiny(0), tiny(0)
    with torch.no_grad():
        second.downs[0].weight.mul_(2)
    path = tmp_path / "both.safetensors"
    quick, slow = (Description(TINY, scale=4, steps=steps, beta_schedule={"n_timestep": 100}) for steps in (1, 4))
    size = save_packed(pack(first, "torch"), path, quick, sets={"perceptual": (pack(second, "torch"), slow)})
    for quality, network, said in ((None, first, quick), ("fidelity", first, quick), ("perceptual", second, slow)):
        loaded, description = load_packed(path, "torch", quality)
        assert_same(loaded, pack(network, "torch"))
        assert description == said
        weights = load_weights(path, quality=quality)
        assert weights.options["beta_schedule"]["num_inference_steps"] == said.steps and "sets" not in weights.options
    tensors, metadata = contents(path)
    assert [name for name in tensors if "/" in name] == ["perceptual/downs.0.weight"]
    assert metadata["version"] == "2"
    assert list(load_sets(path, "torch")) == ["fidelity", "perceptual"]
    alone = save_packed(pack(first, "torch"), tmp_path / "one.safetensors", quick)
    assert size < alone + tensors["perceptual/downs.0.weight"].nbytes + 2500  # of which most is the description


def test_sets_of_other_structure_and_half(tmp_path):
    """A set may have more timestep groups than the first; with float16, too, the tensors of each are its own."""
    torch.manual_seed(5)
    options = TINY | {"dynamic_group": 1}
    one = BIDiffSRUNet(**{key: value for key, value in options.items() if key != "type"}).eval()
    sets = {"perceptual": (pack(tiny(1), "torch"), Description(TINY))}
    path = tmp_path / "both.safetensors"
    save_packed(pack(one, "torch"), path, Description(options), sets=sets, half=True)
    for quality, network in (("fidelity", one), ("perceptual", tiny(1))):
        loaded, _ = load_packed(path, "torch", quality)
        halved = {name: tensor.half().float() if tensor.is_floating_point() else tensor
                  for name, tensor in pack(network, "torch").state.items()}  # fmt: skip
        torch.testing.assert_close(loaded.state, halved, rtol=0, atol=0)


def test_sets_that_are_not_there(written, tmp_path):
    for read in (load_packed, load_weights):
        with pytest.raises(InputError, match=r"net\.safetensors to be one of fidelity, got 'perceptual'$"):
            read(written, quality="perceptual")
    torch.save(tiny().state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth to be one of fidelity, got 'perceptual'$"):
        load_weights(tmp_path / "net.pth", quality="perceptual")
    packed = pack(tiny(), "torch")
    for sets, message in (
        ({"fidelity": (packed, Description(TINY, scale=4))}, "a further set to be one of perceptual"),
        ({"perceptual": (packed, Description(TINY, scale=2))}, "one scale, got x4 and perceptual of x2"),
    ):
        with pytest.raises(InputError, match=message):
            save_packed(packed, tmp_path / "new.safetensors", Description(TINY, scale=4), sets=sets)
    assert not (tmp_path / "new.safetensors").exists()


def assert_same_file(a, b) -> None:
    """To the last bit, but for the order of metadata, and with it the checksum."""
    (tensors, metadata), (others, other) = contents(a), contents(b)
    assert metadata | {"sha256": ""} == other | {"sha256": ""}
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)


def test_command_packs_two_sets(command, tmp_path, capsys):
    torch.save({"params": tiny(2).state_dict()}, tmp_path / "few.pth")
    schedule = dict(n_timestep=100, num_inference_steps=4, timestep_spacing="trailing")
    few = dict(name="few", model_type="BIDiffSRModel", scale=4, num_gpu=0, datasets={}, path={})
    few |= dict(val={"save_img": False}, network_g=TINY, beta_schedule=schedule, residual_scale=3)
    (tmp_path / "few.yml").write_text(yaml.safe_dump(few | {"diffuse": "residual"}))
    network, description = command("--set", f"perceptual={tmp_path / 'few.pth'}")
    assert "perceptual: few.pth (params), 4 steps" in capsys.readouterr().out
    assert_same(network, pack(tiny(1), "torch"))
    assert (description.steps, description.residual_scale) == (5, 2)
    both = tmp_path / "both.safetensors"
    (tmp_path / "out.safetensors").rename(both)
    second, description = load_packed(both, "torch", "perceptual")
    assert_same(second, pack(tiny(2), "torch"))
    assert (description.steps, description.residual_scale) == (4, 3)
    assert description.beta_schedule.timestep_spacing == "trailing" and description.source == "few.pth"

    again = tmp_path / "again.safetensors"
    assert main(["pack", str(both), "-o", str(again)]) in (None, 0)  # a packed file, with all of its sets
    assert_same_file(again, both)
    one = tmp_path / "one.safetensors"
    save_packed(network, one, load_packed(both, "torch")[1])
    joined = ["pack", str(one), "--set", f"perceptual={both}", "-o", str(again), "--overwrite"]
    assert main(joined) in (None, 0)
    assert_same_file(again, both)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "perceptual"], "expected --set perceptual=FILE, got perceptual; CHECKPOINT is the set fidelity"),
        (["--set", "fidelity=x.pth"], "expected --set perceptual=FILE, got fidelity=x.pth"),
        (["--set", "perceptual=x.pth", "--set", "perceptual=y.pth"], "one file for the set perceptual, got x.pth and"),
        (["--set", "perceptual=none.pth"], "expected a checkpoint at none.pth"),
    ],
)
def test_command_refuses_sets(command, arguments, message):
    with pytest.raises(InputError, match=message):
        command(*arguments)


def test_packed_files_bring_their_options(written, capsys):
    for arguments in (["-opt", "x.yml"], ["--params", "params"]):
        assert main(["pack", str(written), "-o", str(written.with_name("new.safetensors")), *arguments]) == 2
        assert "a packed network contains its options" in capsys.readouterr().err


def test_command_refuses(command, tmp_path):
    with pytest.raises(InputError, match="one of BBCUNet, BIDiffSRUNet, SR3UNet"):
        command(network_g={"type": "MSRResNet"})
    with pytest.raises(InputError, match="differs in"):
        command(network_g=TINY | {"res_blocks": 2})
    with pytest.raises(InputError, match="BIDiffSRUNet cannot be built"):
        command(network_g=TINY | {"depth": 2})
    torch.save({"params": tiny(0).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(InputError, match="leave --params out"):
        command("--params", "params_ema")


def test_bench_command_refuses():
    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser)
    for arguments in (
        ["--size", "100"],
        ["--size", "64", "64", "64"],
        ["--rounds", "0"],
        ["--clock", "cpu", "--threads", "2"],
    ):
        with pytest.raises(InputError):
            bench_command.run(parser.parse_args(arguments))

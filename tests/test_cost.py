"""Params and OPs against the paper's tables, fvcore and hand counts; the metrics and the command."""

import argparse
import json
from functools import cache, partial
from math import prod
from pathlib import Path

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.registry import ARCH_REGISTRY
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from bidiffsr_arch.archs import BBCUNet, BIDiffSRUNet, SR3UNet, norm_swish
from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d, convolve, rprelu
from bidiffsr_arch.binary.conv import BinaryWeightConv2d
from bidiffsr_arch.cli import cost as command
from bidiffsr_arch.cli import cost_table
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.metrics import measured
from bidiffsr_arch.metrics.cost import Cost, count_cost
from bidiffsr_arch.metrics.measured import calculate_ops, calculate_params, measured_network
from bidiffsr_arch.metrics.published import PUBLISHED

PROJECT = Path(__file__).parents[1]

BASELINE = dict(rescale="pixelshuffle", fusion="concat", dynamic_group=1)
ROWS = {
    "table2/SR3": None,
    "table2/BI-DiffSR": {},
    "table1_breakdown/Baseline": dict(BASELINE, identity=False),
    "table1_breakdown/+Identity": BASELINE,
    "table1_breakdown/+CP-Down&Up": dict(fusion="concat", dynamic_group=1),
    "table1_breakdown/+CS-Fusion": dict(dynamic_group=1),
    "table1_breakdown/+TaR&TaA": {},
    "table1_fusion/Add": dict(fusion="add", dynamic_group=1),
    "table1_fusion/Concat": dict(fusion="concat", dynamic_group=1),
    "table1_fusion/Split": dict(fusion="split", dynamic_group=1),
    "table1_fusion/CS-Fusion": dict(dynamic_group=1),
    "table1_pairs/1": dict(dynamic_group=1),
    "table1_pairs/2": dict(dynamic_group=2),
    "table1_pairs/5": {},
    "table1_timestep_aware/w/o": dict(tar=False, taa=False),
    "table1_timestep_aware/In": dict(taa=False),
    "table1_timestep_aware/Out": dict(tar=False),
    "table1_timestep_aware/All": {},
}
EXACT = {  # M, G, to the last digit of this package's rules
    "table2/SR3": (55.407235, 176.408113152),
    "table2/BI-DiffSR": (4.575043, 36.668583936),
    "table1_fusion/Add": (4.093635, 33.397026816),
}


@cache
def _count_unet(options: tuple | None) -> Cost:
    with torch.device("meta"):
        return count_cost(SR3UNet() if options is None else BIDiffSRUNet(**dict(options)))


def count_row(row: str) -> Cost:
    """The cost of a table's row at full size; rows with the same network are counted once."""
    return _count_unet(None if ROWS[row] is None else tuple(sorted(ROWS[row].items())))


@pytest.mark.parametrize("row", [row for row in ROWS if row != "table1_fusion/Add"])
def test_counts_as_published(row: str) -> None:
    cost = count_row(row)
    assert (round(cost.params / 1e6, 2), round(cost.ops / 1e9, 2)) == PUBLISHED[row]
    assert cost.uncounted == {}


@pytest.mark.parametrize("row", EXACT)
def test_counts_exactly(row: str) -> None:
    cost = count_row(row)
    assert (cost.params / 1e6, cost.ops / 1e9) == EXACT[row]


def test_every_published_row_but_the_competitors_is_counted_here() -> None:
    competitors = {"table2/" + name for name in ("BNN", "DoReFa", "XNOR", "IRNet", "ReActNet", "BBCU")}
    assert set(PUBLISHED) == set(ROWS) | competitors


def test_page_shows_these_counts() -> None:
    page = (PROJECT / "docs" / "cost.md").read_text(encoding="utf-8")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines()}
    for row in ROWS:
        cost = count_row(row)
        numbers = [f"{value:,}" for value in (cost.params_fp, cost.params_binary, cost.ops_fp, cost.ops_binary)]
        assert lines[row.removeprefix("table2/")].rstrip(" |").split(" | ")[-4:] == numbers


# fvcore counts on real tensors, and binary convolutions like all others.


class NoGradient:
    """A substitute for the context of an autograd function whose forward is called directly."""

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None: ...


@pytest.fixture
def open_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the forwards of this package's autograd functions directly, since tracing cannot look into the functions."""
    for module in (convolve, rprelu, norm_swish):
        for function in vars(module).values():
            if isinstance(function, type) and issubclass(function, torch.autograd.Function):
                monkeypatch.setattr(function, "apply", partial(function.forward, NoGradient()))


def fvcore_count(network: nn.Module, *inputs: torch.Tensor) -> tuple[int, int]:
    """Operations outside and inside binary convolutions."""

    def attention(inputs: list, outputs: list) -> int:
        batch, heads, tokens, channels = get_shape(inputs[0])
        return 2 * batch * heads * tokens * tokens * channels

    def norm(inputs: list, outputs: list) -> int:
        return 5 * prod(get_shape(outputs[0]))

    analysis = FlopCountAnalysis(network.eval().requires_grad_(False), inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.set_op_handle("aten::native_group_norm", norm)
    binary = [name for name, module in network.named_modules() if isinstance(module, BinaryWeightConv2d)]
    by_module = analysis.by_module()
    in_binary = sum(by_module[name] for name in binary)
    return by_module[""] - in_binary, in_binary


@pytest.mark.parametrize(
    "unet, options",
    [(SR3UNet, {}), (BIDiffSRUNet, dict(res_blocks=1, attn_res=[64]))],
    ids=["SR3", "BI-DiffSR"],
)
def test_agrees_with_fvcore(unet: type[nn.Module], options: dict, open_functions: None) -> None:
    network = unet(**options)
    image = torch.zeros(1, 3, 32, 64)
    cost = count_cost(network, (32, 64))
    assert (cost.ops_fp, cost.ops_binary) == fvcore_count(network, image, image, torch.zeros(1))


def tiny_swinir() -> nn.Module:
    size = dict(img_size=16, window_size=8, depths=[2], num_heads=[2], embed_dim=8)
    return SwinIR(**size, upscale=2, upsampler="pixelshuffle")


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(RRDBNet(3, 3, num_feat=8, num_block=1, num_grow_ch=4), id="RRDBNet"),
        pytest.param(RRDBNet(3, 3, scale=2, num_feat=8, num_block=1, num_grow_ch=4), id="RRDBNet x2"),
        pytest.param(EDSR(3, 3, num_feat=8, num_block=2), id="EDSR"),
        pytest.param(tiny_swinir(), id="SwinIR"),
    ],
)
def test_counts_basicsr_networks_as_fvcore_does(network: nn.Module) -> None:
    cost = count_cost(network, (16, 24))
    assert cost.inputs == ((1, 3, 16, 24),)
    assert (cost.params_fp, cost.params_binary) == (sum(p.numel() for p in network.parameters()), 0)
    assert (cost.ops_fp, cost.ops_binary) == fvcore_count(network, torch.zeros(1, 3, 16, 24))
    assert cost.uncounted == {}


# Counts by hand.


class Attention(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize(
    "module, shape, params, ops",
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 5, 7), 8 * 3 * 9 + 8, 5 * 7 * 8 * 3 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), (1, 4, 6, 6), 8 * 2 * 9 + 8, 3 * 3 * 8 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 3, 3), 4 * 6 * 4 + 6, 3 * 3 * 4 * 6 * 4),
        (nn.Linear(5, 7), (2, 5), 5 * 7 + 7, 2 * 5 * 7),
        (nn.Linear(5, 7, bias=False), (2, 3, 5), 5 * 7, 2 * 3 * 5 * 7),
        (nn.GroupNorm(2, 4), (1, 4, 3, 5), 8, 5 * 60),
        (nn.LayerNorm(5), (1, 4, 3, 5), 10, 5 * 60),
        (nn.InstanceNorm2d(4), (1, 4, 3, 5), 0, 5 * 60),
        (nn.BatchNorm2d(4), (1, 4, 3, 5), 8, 60),
        (nn.Upsample(scale_factor=2), (1, 4, 3, 5), 0, 240),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 4, 3, 5), 0, 4 * 240),
        (nn.Upsample(scale_factor=2, mode="bicubic"), (1, 4, 3, 5), 0, 16 * 240),
        (nn.AvgPool2d((3, 1), stride=1), (1, 4, 3, 5), 0, 3 * 20),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 3, 5), 0, 60),
        (Attention(), (1, 2, 6, 3), 0, 2 * 2 * 6 * 6 * 3),
        (nn.PReLU(4), (1, 4, 3, 5), 4, 0),
        (nn.Sequential(nn.SiLU(), nn.Softmax(1), nn.PixelShuffle(2), nn.ZeroPad2d(1)), (1, 4, 3, 5), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_counts_by_hand(module: nn.Module, shape: tuple[int, ...], params: int, ops: int) -> None:
    cost = count_cost(module, inputs=torch.zeros(shape))
    assert (cost.params, cost.ops, cost.uncounted) == (params, ops, {})


BATCH_NORM, MAP_K = 6 * 35, (4 + 9) * 35  # for 4 -> 6 channels, 3x3, on 5x7 pixels


@pytest.mark.parametrize(
    "binarizer, params_fp, ops_fp",
    [
        ("bnn", 12, BATCH_NORM),
        ("dorefa", 12, BATCH_NORM),
        ("xnor", 12, BATCH_NORM + MAP_K),
        ("irnet", 12, BATCH_NORM),
        ("reactnet", 4 + 12 + 18, BATCH_NORM),
        ("bbcu", 4 + 18, 0),
        ("bidiffsr", 4 + 18, 0),
    ],
)
def test_counts_each_binarizer_by_hand(binarizer: str, params_fp: int, ops_fp: int) -> None:
    cost = count_cost(BinaryConv2d(4, 6, 3, BINARIZERS[binarizer]), (5, 7))
    assert (cost.params_fp, cost.params_binary) == (params_fp, 6 * 4 * 9)
    assert (cost.ops_fp, cost.ops_binary) == (ops_fp, 6 * 4 * 9 * 35)
    assert cost.params == params_fp + 6 * 4 * 9 / 32
    assert cost.ops == ops_fp + 6 * 4 * 9 * 35 / 64
    assert cost.uncounted == {}


def test_weights_that_stay_real_count_as_full_precision() -> None:
    cost = count_cost(BinaryConv2d(4, 6, 3, BINARIZERS["bidiffsr"], binarize="activations"), (5, 7))
    assert (cost.params_fp, cost.params_binary) == (4 + 18 + 6 * 4 * 9, 0)
    assert (cost.ops_fp, cost.ops_binary) == (6 * 4 * 9 * 35, 0)
    assert cost.uncounted == {}


def test_counts_the_network_without_diffusion_by_hand() -> None:
    """Width 8, 2 blocks of two convolutions, x4: four convolutions before each of two PixelShuffles."""
    cost = count_cost(BBCUNet(num_feat=8, num_block=2, upscale=4), (5, 7))
    assert cost.inputs == ((1, 3, 5, 7),)
    binary, pixels = 8 * 8 * 9, 5 * 7
    assert cost.params_fp == (3 * 8 * 9 + 8) + (4 + 4 + 4) * 4 * 8 + (8 * 3 * 9 + 3)
    assert cost.params_binary == (4 + 4 + 4) * binary
    assert cost.ops_fp == 3 * 8 * 9 * pixels + 8 * 3 * 9 * 16 * pixels + 4 * 3 * 16 * pixels  # bilinear: 4 an output
    assert cost.ops_binary == (4 + 4 + 4 * 4) * binary * pixels
    assert cost.uncounted == {}


@pytest.mark.parametrize("unet", [BIDiffSRUNet, SR3UNet])
def test_counts_a_network_on_patches_by_hand(unet: type[nn.Module]) -> None:
    """Inputs are images; the first layer has 6 * 2² input channels on a quarter of the pixels, the last 3 * 2²
    outputs."""
    sizes = dict(inner_channel=8, norm_groups=4, channel_mults=[1], res_blocks=1, mid_attn=False)
    cost = count_cost(unet(**sizes, patch_size=2, input_scale=0.5), (12, 20))
    assert cost.inputs == ((1, 3, 12, 20), (1, 3, 12, 20), (1,))
    ops = {module.name: module.ops_fp for module in cost.modules}
    pixels = 6 * 10
    assert ops["downs.0"] == 24 * 8 * 9 * pixels
    assert ops["final_conv"] == (8 * 12 * 9 + 5 * 8) * pixels
    whole, quarter = count_cost(unet(**sizes), (6, 10)), cost
    assert (whole.ops_binary, whole.uncounted) == (quarter.ops_binary, quarter.uncounted)
    assert quarter.ops_fp - whole.ops_fp == (18 * 8 * 9 + 8 * 9 * 9) * pixels


def test_shared_module_has_its_parameters_once_and_its_operations_each_time() -> None:
    linear = nn.Linear(4, 4)
    cost = count_cost(nn.Sequential(linear, linear), inputs=torch.zeros(1, 4))
    assert (cost.params, cost.ops) == (20, 32)


class Sorter(nn.Module):
    """Calls an operator without a rule, and prints."""

    def __init__(self, word: str = "sorting") -> None:
        super().__init__()
        self.conv, self.word = nn.Conv2d(3, 1, 1), word

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(self.word)
        return self.conv(x.sort(1).values.sort(2).values).cumsum(1)


def test_uncounted_operators_are_listed() -> None:
    cost = count_cost(Sorter(), (2, 2))
    assert cost.uncounted == {"aten.sort": 2, "aten.cumsum": 1}
    assert cost.ops == 3 * 4


def test_modules_are_in_tree_order_and_hold_what_is_in_them(tiny_network: BIDiffSRUNet) -> None:
    cost = count_cost(tiny_network, (16, 16))
    assert [module.name for module in cost.modules] == [name for name, _ in tiny_network.named_modules()]
    rows = {module.name: module for module in cost.modules}
    for field in ("params_fp", "params_binary", "ops_fp", "ops_binary"):
        assert getattr(rows[""], field) == getattr(cost, field)
        children = [getattr(row, field) for name, row in rows.items() if name and "." not in name]
        assert sum(children) == getattr(cost, field)
    conv = rows["downs.1.res_block.block1.conv.binary_conv"]
    assert (conv.kind, conv.params_fp, conv.ops_fp) == ("BinaryWeightConv2d", 0, 0)
    assert (conv.params_binary, conv.ops_binary) == (8 * 8 * 9, 8 * 8 * 9 * 16 * 16)


# Counting does not change the network and computes nothing.


def test_network_is_not_changed(tiny_options: dict) -> None:
    network = BIDiffSRUNet(**dict(tiny_options, binarizer="reactnet")).train()
    network.ups.eval()
    modes = [module.training for module in network.modules()]
    before = dict([*network.named_parameters(), *network.named_buffers()])
    values = {name: tensor.clone() for name, tensor in before.items()}
    count_cost(network, (16, 16))
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    after = dict([*network.named_parameters(), *network.named_buffers()])
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name] is tensor and torch.equal(tensor, values[name])


def test_counts_the_same_in_any_state(tiny_network: BIDiffSRUNet) -> None:
    expected = count_cost(tiny_network, (16, 16))
    assert count_cost(tiny_network.train(), (16, 16)) == expected
    assert count_cost(tiny_network.half(), (16, 16)) == expected
    with torch.inference_mode():
        assert count_cost(tiny_network, (16, 16)) == expected
    assert count_cost(torch.compile(tiny_network, backend="eager"), (16, 16)) == expected


def test_an_image_larger_than_any_memory_is_counted(tiny_network: BIDiffSRUNet) -> None:
    small, large = count_cost(tiny_network, (64, 64)), count_cost(tiny_network, (65536, 65536))
    assert large.ops_binary == small.ops_binary * 1024**2


def test_wrong_inputs_are_reported(tiny_network: BIDiffSRUNet) -> None:
    with pytest.raises(InputError, match="multiples of 2, got 15x16"):
        count_cost(tiny_network, (15, 16))
    with pytest.raises(InputError, match="two positive integers"):
        count_cost(tiny_network, (256, 0))
    with pytest.raises(InputError, match="two positive integers"):
        count_cost(tiny_network, 256)
    with pytest.raises(InputError, match=r"expected Linear to run on an image of 8x8.*inputs="):
        count_cost(nn.Linear(3, 3), (8, 8))


# As BasicSR's metrics.


def test_metrics_are_those_of_the_measured_network(tiny_network: BIDiffSRUNet, tiny_options: dict) -> None:
    other = BIDiffSRUNet(**dict(tiny_options, dynamic_group=1))
    cost = count_cost(tiny_network, (256, 256))
    with measured_network(tiny_network):
        assert calculate_params(None, None, better="lower") == cost.params / 1e6
        assert calculate_ops(None, None, crop_border=4) == cost.ops / 1e9
        assert calculate_ops(None, None, input_size=[32, 64]) == count_cost(tiny_network, (32, 64)).ops / 1e9
        with measured_network(other):
            assert calculate_params(None, None) == count_cost(other).params / 1e6
        assert calculate_params(None, None) == cost.params / 1e6


def test_metrics_count_once_for_all_images(tiny_network: BIDiffSRUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    count = measured.count_cost
    monkeypatch.setattr(measured, "count_cost", lambda network, size: sizes.append(size) or count(network, size))
    with measured_network(tiny_network):
        for _ in range(3):
            calculate_params(None, None)
            calculate_ops(None, None)
            calculate_ops(None, None, input_size=[16, 16])
    assert sizes == [(256, 256), (16, 16)]


@pytest.mark.parametrize("metric", [calculate_params, calculate_ops])
def test_metrics_without_a_network_raise_a_helpful_error(metric) -> None:
    with pytest.raises(InputError, match=f"{metric.__name__}.*BIDiffSRModel.*basicsr cost") as error:
        metric(None, None, crop_border=4)
    assert "\n" not in str(error.value)


# The command.

JSON_KEYS = ["opt", "name", "params_m", "ops_g", "params_fp", "params_binary", "ops_fp", "ops_binary", "published"]


@pytest.fixture
def option_file(tmp_path: Path):
    """A function that writes an option file with the given `network_g` and further keys, and returns its path."""

    def write(network: dict | None, **further: object) -> str:
        options = dict(name="mine", model_type="SRModel", num_gpu=0, datasets={}, path={}, val={"save_img": False})
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yml"
        path.write_text(json.dumps({**options, "network_g": network, **further}))  # JSON is YAML
        return str(path)

    return write


@pytest.fixture
def sorter_registered():
    ARCH_REGISTRY.register(Sorter)
    yield
    del ARCH_REGISTRY._obj_map["Sorter"]


def run_command(*words: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(words))


def test_json_has_the_documented_keys_and_nothing_else_is_printed(option_file, sorter_registered, capsys) -> None:
    unet = dict(type="BIDiffSRUNet", dynamic_group=2)
    files = [
        option_file(unet, paper_row="table1_pairs/2"),
        option_file(None, model_type="BicubicModel", paper_row="table2/Bicubic"),
        option_file(dict(type="Sorter")),
    ]
    run_command("-opt", *files, "--json")
    captured = capsys.readouterr()
    pairs, bicubic, sorter = json.loads(captured.out)
    assert [list(entry) for entry in (pairs, bicubic, sorter)] == [JSON_KEYS] * 3
    expected = count_row("table1_pairs/2")
    assert pairs == dict(
        opt=files[0], name="table1_pairs/2", params_m=expected.params / 1e6, ops_g=expected.ops / 1e9,
        params_fp=expected.params_fp, params_binary=expected.params_binary, ops_fp=expected.ops_fp,
        ops_binary=expected.ops_binary, published=dict(params_m=4.37, ops_g=36.67),
    )  # fmt: skip
    assert (bicubic["name"], bicubic["params_m"], bicubic["ops_g"], bicubic["published"]) == ("Bicubic", 0, None, None)
    assert (sorter["name"], sorter["published"]) == ("mine", None)
    assert "aten.sort (2 times)" in captured.err and "sorting" in captured.err


def test_the_table_lists_uncounted_operators(option_file, sorter_registered, capsys) -> None:
    run_command("-opt", option_file(dict(type="Sorter")), "--input-size", "8", "4", "--by-module")
    out = capsys.readouterr().out
    assert "mine: counted for an input of 1x3x8x4" in out
    assert "mine: not counted, because there is no rule: aten.sort (2 times), aten.cumsum (1 times)" in out
    conv = next(line for line in out.splitlines() if line.startswith("conv "))
    assert conv.split() == ["conv", "Conv2d", "0.0000", "0.0000", "4", "0", "96", "0"]


def test_published_figures_are_shown_at_their_input_size_only(tiny_options: dict, option_file, capsys) -> None:
    file = option_file(dict(tiny_options, type="BIDiffSRUNet"), paper_row="table2/BI-DiffSR")
    for size, published in ((256, dict(params_m=4.58, ops_g=36.67)), (64, None)):
        run_command("-opt", file, "--input-size", str(size), str(size), "--json")
        assert json.loads(capsys.readouterr().out)[0]["published"] == published


def test_the_row_of_a_base_file_is_not_inherited(tiny_options: dict, option_file, capsys) -> None:
    base = option_file(dict(tiny_options, type="BIDiffSRUNet"), paper_row="table2/BI-DiffSR")
    run_command("-opt", option_file({}, base=base, name="derived"), "--json")
    entry = json.loads(capsys.readouterr().out)[0]
    assert (entry["name"], entry["published"]) == ("derived", None)


def test_markdown_is_a_page_with_every_row(tiny_options: dict, option_file, capsys) -> None:
    networks = {"table1_fusion/Add": "add", "table2/BI-DiffSR": "cs"}
    files = [
        option_file(dict(tiny_options, type="BIDiffSRUNet", fusion=fusion), paper_row=row)
        for row, fusion in networks.items()
    ]
    run_command("-opt", *files, "--markdown")
    lines = capsys.readouterr().out.splitlines()
    table = [line.split(" | ") for line in lines if line.startswith("|")]
    assert [line[0] for line in table[2:]] == ["| BI-DiffSR", "| table1_fusion/Add"]  # in the paper's order
    assert {len(line) for line in table} == {len(cost_table.COLUMNS)}
    assert [line for line in lines if line.startswith("- ")] == ["- " + cost_table.NOTES["table1_fusion/Add"]]


@pytest.mark.parametrize(
    "network, message",
    [
        (dict(type="BIDifSRUNet"), "network_g: type to be one of .*BIDiffSRUNet.*got 'BIDifSRUNet'"),
        (dict(type="SR3UNet", dynamic_group=5), "SR3UNet cannot be built: .*dynamic_group"),
        (dict(type="BIDiffSRUNet", fusion="sum"), "fusion to be one of"),
    ],
)
def test_wrong_networks_are_refused_by_file(network: dict, message: str, option_file) -> None:
    file = option_file(network)
    with pytest.raises(InputError, match=f"^{file}: .*{message}"):
        run_command("-opt", file)


def test_by_module_and_markdown_exclude_each_other(option_file) -> None:
    with pytest.raises(InputError, match="leave one out"):
        run_command("-opt", option_file(dict(type="SR3UNet")), "--markdown", "--by-module")

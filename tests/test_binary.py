"""Sign functions, weight binarizations, per-timestep banks and the seven binarizers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d, cached_weights, repeat_groups, set_progress, timestep_group
from bidiffsr_arch.binary.bank import TimestepBias, TimestepRPReLU
from bidiffsr_arch.binary.conv import BinaryWeightConv2d, RealWeightConv2d
from bidiffsr_arch.binary.conv2d import working_dtype
from bidiffsr_arch.binary.convolve import convolve
from bidiffsr_arch.binary.sign import SURROGATES, signs_of

V = [-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.5]


def of_one_pixel(x: torch.Tensor, w: torch.Tensor, *, scale: float = 1.0, p: float = 0.0, **surrogates: str):
    """Activations x, (C,), convolved with weights w, (C_out, C)."""
    w = w[..., None, None]
    names = dict(activation="clip", weight="clip") | surrogates
    scale, progress = torch.full((1, 1, 1), scale), torch.tensor(p)
    z, sums = convolve(x.reshape(1, -1, 1, 1), None, w, (w >= 0,), scale, **names, progress=progress)
    assert torch.equal(z, sums.result())
    return z.flatten()


def gradient(surrogate: str, values: list[float], p: float = 0.0) -> list[float]:
    """Of the activations' sign, seen through weights of +1."""
    v = torch.tensor(values, requires_grad=True)
    of_one_pixel(v, torch.ones(1, len(values)), activation=surrogate, p=p).sum().backward()
    return v.grad.tolist()


def test_sign_of_zero_is_plus_one():
    values = [-1e-30, -0.0, 0.0, 1e-30]
    assert [of_one_pixel(torch.tensor([v]), torch.ones(1, 1)).item() for v in values] == [-1, 1, 1, 1]
    assert of_one_pixel(torch.ones(1), torch.tensor(values)[:, None]).tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float64])
def test_signs_are_exact_in_every_type(dtype):
    v = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, -1e-45, 1e-45, 3.0]).view(2, 4)
    expected = torch.tensor([-1.0, 1, -1, 1, 1, -1, 1, 1]).view(2, 4)
    assert torch.equal(signs_of(v, dtype=dtype), expected.to(dtype or torch.float32))
    scale = torch.tensor([[0.3], [1e-30]])
    assert torch.equal(signs_of(v, scale), expected * scale)
    assert signs_of(v.to("meta"), scale.to("meta")).shape == v.shape


@pytest.mark.parametrize(
    ("surrogate", "expected"),
    [
        ("clip", [0, 1, 1, 1, 1, 1, 0]),
        ("poly", [0, 0, 1, 2, 1.5, 0, 0]),
        ("straight", [1] * 7),
    ],
)
def test_surrogate_gradients(surrogate, expected):
    assert gradient(surrogate, V) == expected


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_error_decay_estimator_follows_its_formula(p):
    t = 0.1 * 10 ** (2 * p)
    k = max(1 / t, 1)
    expected = [k * t * (1 - math.tanh(t * v) ** 2) for v in V]
    assert gradient("ede", V, p) == pytest.approx(expected, abs=1e-6)


def test_scale_multiplies_the_result_and_the_gradient_of_activations_not_that_of_weights():
    x, w = torch.tensor([0.5], requires_grad=True), torch.tensor([[-0.5]], requires_grad=True)
    z = of_one_pixel(x, w, scale=3.0)
    z.backward()
    assert (z.item(), x.grad.item(), w.grad.item()) == (-3, -3, 1)


# One layer of two 1x1 filters over two channels; channel means of |w| are 0.5 and 1.5, the layer's is 1.
W = torch.tensor([[-0.75, 0.25], [2.0, -1.0]]).reshape(2, 2, 1, 1)


def layer_of(weight: torch.Tensor, method: str) -> BinaryWeightConv2d:
    layer = BinaryWeightConv2d(weight.shape[1], weight.shape[0], weight.shape[2], "clip", method)
    layer.weight.data = weight.clone()
    return layer


@pytest.mark.parametrize(
    ("method", "values", "grads"),
    [
        ("sign", [-1, 1, 1, -1], [1, 1, 0, 1]),
        ("layer_mean", [-1, 1, 1, -1], [1, 1, 1, 1]),
        ("channel_mean", [-0.5, 0.5, 1.5, -1.5], [1, 1, 0, 1]),
    ],
)
def test_weights_on_a_hand_worked_example(method, values, grads):
    layer = layer_of(W, method)
    layer(torch.ones(1, 2, 1, 1))[0].sum().backward()
    assert layer.binary_weight().flatten().tolist() == values and layer.weight.grad.flatten().tolist() == grads


def test_standardised_weights_on_a_hand_worked_example():
    # Mean 0, unbiased deviation sqrt(8 / 3): standardised magnitudes average 0.612, and log2 of that, -0.71, rounds to
    # -1.
    layer = layer_of(torch.tensor([0.0, 0.0, 2.0, -2.0]).reshape(1, 4, 1, 1), "standardised")
    assert layer.binary_weight().flatten().tolist() == [0.5, 0.5, 0.5, -0.5]


def test_standardised_weights_gradient_is_that_of_the_composition():
    torch.manual_seed(0)
    layer = layer_of(torch.randn(3, 4, 3, 3), "standardised")
    x, target, p = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 6), 0.3
    set_progress(layer, p)
    (layer(x)[0] * target).sum().backward()
    # An independent composition: the surrogate's antiderivative max(1/t, 1) tanh(t v) has the same derivative.
    u = layer.weight.detach().clone().requires_grad_()
    v = (u - u.mean((1, 2, 3), keepdim=True)) / u.std((1, 2, 3), keepdim=True)
    t = 0.1 * 10 ** (2 * p)
    (F.conv2d(torch.where(x >= 0, 1.0, -1.0), max(1 / t, 1) * torch.tanh(t * v), padding=1) * target).sum().backward()
    torch.testing.assert_close(layer.weight.grad, u.grad, atol=1e-5, rtol=1e-5)  # rounding of sums of 60 numbers


def sign_by_composition(r: torch.Tensor) -> torch.Tensor:
    """Value sign(r), gradient 2 + 2r on [-1, 0), 2 - 2r on [0, 1)."""
    soft = torch.where(r < 0, 2 * r + r * r, 2 * r - r * r).where(r.abs() < 1, r.sign().detach())
    return torch.where(r >= 0, 1.0, -1.0) + soft - soft.detach()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_bi_conv_has_the_gradients_of_its_composition(batch, channels, k, height, width, groups):
    torch.manual_seed(channels)
    layer = BinaryConv2d(channels, channels, k, BINARIZERS["bidiffsr"], shift_groups=groups, rprelu_groups=groups)
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter).double()
    group = torch.randint(groups, (batch,))
    x = torch.randn(batch, channels, height, width, dtype=torch.double, requires_grad=True)
    target = torch.randn(batch, channels, height, width)

    def gradients(out: torch.Tensor) -> list[torch.Tensor]:
        return torch.autograd.grad((out * target).sum(), [x, *layer.parameters()])

    w = layer.binary_conv.weight
    scale = w.detach().abs().mean((1, 2, 3), keepdim=True)
    wb = w.clamp(-1, 1) + (scale * torch.where(w >= 0, 1.0, -1.0) - w.clamp(-1, 1)).detach()
    z = F.conv2d(sign_by_composition(x + layer.TaR.pick("bias", group)), wb, padding=k // 2)
    y = z + layer.TaA.pick("bias0", group)
    composed = torch.where(y > 0, y, layer.TaA.pick("slope", group) * y) + layer.TaA.pick("bias1", group) + x

    out = layer(x, group)
    torch.testing.assert_close(out, composed, atol=1e-10, rtol=0)
    for got, expected in zip(gradients(out), gradients(composed), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)  # double precision


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2), st.integers(1, 20), st.sampled_from([1, 3, 5]), st.integers(1, 9), st.integers(1, 9))
def test_gradients_in_either_layout_differ_by_rounding(batch, channels, k, height, width):
    torch.manual_seed(channels)
    layer = BinaryConv2d(channels, channels, k, BINARIZERS["bidiffsr"])
    x = torch.randn(batch, channels, height, width, requires_grad=True)
    target, gradients = torch.randn(batch, channels, height, width), []
    for pixels in (range(0), range(100)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bidiffsr_arch.binary.conv2d.CHANNELS_LAST_PIXELS", pixels)
            gradients.append(torch.autograd.grad((layer(x) * target).sum(), [x, *layer.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert one.is_contiguous() and other.is_contiguous()
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)  # sums of up to 81 * 20 numbers in another order


def test_a_bi_conv_stores_two_bytes_per_input_element_and_one_per_weight():
    layer = BinaryConv2d(32, 32, 3, BINARIZERS["bidiffsr"])
    x = torch.randn(2, 32, 40, 40, requires_grad=True)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    given_ = (x.data_ptr(), layer.binary_conv.weight.data_ptr())
    own = sum(size for address, size in kept.items() if address not in given_)
    assert own <= 2 * x.numel() + layer.binary_conv.weight.numel() + 32 * 8 * 4  # and some numbers a channel


@pytest.mark.parametrize("name", BINARIZERS)
def test_cached_weights_are_binarized_once_with_the_same_results(name, monkeypatch):
    torch.manual_seed(3)
    layer = BinaryConv2d(4, 4, 3, BINARIZERS[name])
    x = torch.randn(2, 4, 5, 6)

    def gradients() -> list[torch.Tensor]:
        return torch.autograd.grad(layer(x).square().sum() + layer(-x).sum(), list(layer.parameters()))

    expected = gradients()
    calls = []
    original = BinaryWeightConv2d.binarized
    monkeypatch.setattr(BinaryWeightConv2d, "binarized", lambda *a, **k: calls.append(1) or original(*a, **k))
    with cached_weights(layer):
        assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))
    assert len(calls) == 1 and layer.binary_conv.cached is None
    gradients()
    assert len(calls) == 3


@given(st.integers(1, 8), st.integers(1, 2000), st.integers(0, 1999))
def test_groups_partition_the_timesteps(groups, total_step, t):
    t = t % total_step
    expected = min(groups * t // total_step, groups - 1)
    assert timestep_group(torch.tensor([t]), total_step, groups).item() == expected
    assert timestep_group(torch.tensor([float(t)]), total_step, groups).item() == expected


def test_group_of_out_of_range_timesteps_is_clamped():
    assert timestep_group(torch.tensor([-3, 2000, 9999]), 2000, 5).tolist() == [0, 4, 4]


def test_banks_select_the_set_of_each_sample():
    bias = TimestepBias(3, 2)
    bias.bias.data = torch.arange(6.0).reshape(3, 2)
    out = bias(torch.zeros(2, 2, 1, 1), torch.tensor([2, 0]))
    assert out.flatten().tolist() == [4, 5, 0, 1]

    rprelu = TimestepRPReLU(2, 1)
    rprelu.bias0.data, rprelu.slope.data, rprelu.bias1.data = (
        torch.tensor([[a], [b]]) for a, b in ((1.0, -1.0), (0.5, 0.1), (10.0, 20.0))
    )
    out = rprelu(torch.tensor([[-3.0], [2.0]]).reshape(2, 1, 1, 1), torch.tensor([0, 1]))
    assert out.flatten().tolist() == [-2 * 0.5 + 10, 1 + 20]


def test_a_bank_of_several_sets_needs_the_group():
    with pytest.raises(ValueError, match="expected the timestep group"):
        TimestepBias(2, 1)(torch.zeros(1, 1, 1, 1))


def test_banks_load_and_save_one_tensor_per_set():
    bank = TimestepRPReLU(2, 3)
    state = bank.state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        f"dynamic_relu_{k}.{name}": shape
        for k in range(2)
        for name, shape in (("pr_bias0.bias", (1, 3, 1, 1)), ("pr_prelu.weight", (3,)), ("pr_bias1.bias", (1, 3, 1, 1)))
    }
    values = {name: torch.randn_like(t) for name, t in state.items()}
    bank.load_state_dict(values)
    assert all(torch.equal(t, values[name]) for name, t in bank.state_dict().items())


def test_banks_name_missing_unexpected_and_misshapen_tensors():
    bank = TimestepBias(2, 3)
    with pytest.raises(RuntimeError, match=r"dynamic_move_1\.bias"):
        bank.load_state_dict({"dynamic_move_0.bias": torch.zeros(1, 3, 1, 1)})
    with pytest.raises(RuntimeError, match=r"Unexpected.*dynamic_move_2\.bias"):
        bank.load_state_dict({f"dynamic_move_{k}.bias": torch.zeros(1, 3, 1, 1) for k in range(3)})
    with pytest.raises(
        RuntimeError, match=r"size mismatch for dynamic_move_0\.bias: expected \(1, 3, 1, 1\), got \(1, 4, 1, 1\)"
    ):
        bank.load_state_dict({f"dynamic_move_{k}.bias": torch.zeros(1, 4, 1, 1) for k in range(2)})


def by_hand(name: str, x: torch.Tensor, layer: BinaryConv2d) -> torch.Tensor:
    """Forward of a binarizer straight from its definition, for a 3x3 layer with freshly initialised norm and bias."""
    w = layer.binary_conv.weight.detach()
    ones = torch.where(w >= 0, 1.0, -1.0)
    magnitude = w.abs().mean((1, 2, 3), keepdim=True)
    weight = {
        "bnn": ones,
        "dorefa": ones * w.abs().mean(),
        "xnor": ones * magnitude,
        "reactnet": ones * magnitude,
        "bbcu": ones * magnitude,
        "bidiffsr": ones * magnitude,
    }
    if name == "irnet":
        v = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        weight["irnet"] = torch.where(v >= 0, 1.0, -1.0) * 2 ** torch.round(
            torch.log2(v.abs().mean((1, 2, 3), keepdim=True))
        )
    z = F.conv2d(torch.where(x >= 0, 1.0, -1.0), weight[name], padding=1)
    if name == "xnor":
        z = z * F.conv2d(x.abs().mean(1, keepdim=True), torch.full((1, 1, 3, 3), 1 / 9), padding=1)
    if name not in ("bbcu", "bidiffsr"):
        z = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    if name in ("reactnet", "bbcu", "bidiffsr"):
        z = F.prelu(z, torch.full((w.shape[0],), 0.25)) + x
    return z


@pytest.mark.parametrize("name", BINARIZERS)
def test_binarizers_follow_their_definition(name):
    torch.manual_seed(1)
    layer = BinaryConv2d(4, 4, 3, BINARIZERS[name])
    x = torch.randn(2, 4, 5, 6)
    x[0, 0, 0, 0] = 0.0  # 1-bit has no zero: counts as +1
    torch.testing.assert_close(
        layer(x), by_hand(name, x, layer), atol=1e-5, rtol=1e-4
    )  # BatchNorm divides by small deviations


@pytest.mark.parametrize("name", BINARIZERS)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(2)
    layer = BinaryConv2d(4, 4, 1, BINARIZERS[name])
    layer(torch.randn(2, 4, 5, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_shortcut_needs_method_switch_and_equal_widths():
    assert BinaryConv2d(4, 4, 1, BINARIZERS["bidiffsr"]).shortcut
    assert not BinaryConv2d(4, 2, 1, BINARIZERS["bidiffsr"]).shortcut
    assert not BinaryConv2d(4, 4, 1, BINARIZERS["bidiffsr"], identity=False).shortcut
    assert not BinaryConv2d(4, 4, 1, BINARIZERS["bnn"]).shortcut


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 3),
)
def test_padded_taps_add_nothing(c_in, c_out, k, height, width, batch):
    layer = BinaryConv2d(c_in, c_out, k, BINARIZERS["bnn"]).eval()
    z = layer(torch.ones(batch, c_in, height, width))
    ones = torch.where(layer.binary_conv.weight >= 0, 1.0, -1.0)
    counted = F.conv2d(F.pad(torch.ones(batch, c_in, height, width), [k // 2] * 4), ones)
    torch.testing.assert_close(z, counted / math.sqrt(1 + 1e-5))


def test_progress_is_set_in_every_layer_and_not_saved():
    network = torch.nn.Sequential(*(BinaryConv2d(2, 2, 1, BINARIZERS["irnet"]) for _ in range(2)))
    set_progress(network, 0.75)
    assert [layer.binary_conv.progress.item() for layer in network] == [0.75, 0.75]
    assert not any("progress" in name for name in network.state_dict())


@pytest.mark.parametrize("activation", ["clip", "poly", "ede"])
def test_real_weights_convolve_signs(activation):
    """The first of two stages: weights get the gradients of an ordinary convolution of the signs."""
    generator = torch.Generator().manual_seed(0)
    layer = RealWeightConv2d(3, 4, 3, activation)
    x = (2 * torch.randn(2, 3, 5, 6, generator=generator)).requires_grad_()
    shift = torch.randn(2, 3, 1, 1, generator=generator, requires_grad=True)
    z, sums = layer(x, shift)
    r = (x + shift).detach()
    weight = layer.weight.detach().clone().requires_grad_()
    signs = torch.where(r >= 0, 1.0, -1.0).requires_grad_()
    expected = F.conv2d(signs, weight, padding=1)
    assert sums is None and torch.equal(z, expected)
    grad = torch.randn(z.shape, generator=generator)
    z.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=0, atol=0)
    wanted = SURROGATES[activation](signs.grad, r, torch.zeros(()))
    torch.testing.assert_close(x.grad, wanted, rtol=0, atol=0)
    torch.testing.assert_close(shift.grad, wanted.sum((2, 3), keepdim=True), rtol=1e-5, atol=1e-6)  # order of sums


@pytest.mark.parametrize("name", BINARIZERS)
def test_the_second_stage_begins_with_the_weights_of_the_first(name):
    """A layer of either stage has the same tensors, and where weights are ±scale, gives the same result."""
    first, second = (BinaryConv2d(4, 4, 3, BINARIZERS[name], binarize=what).eval() for what in ("activations", "all"))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        first.binary_conv.weight.copy_(second.binary_conv.binary_weight())
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first(x), second(x), rtol=1e-4, atol=1e-6)  # sums of scaled signs, rounded
    set_progress(first, 0.5)
    assert first.binary_conv.progress == 0.5


@given(st.integers(1, 4), st.integers(1, 4))
def test_groups_are_repeated_for_the_timesteps_that_they_served(old, times):
    new = old * times
    small, large = (torch.nn.Sequential(TimestepBias(k, 2), TimestepRPReLU(k, 2)) for k in (old, new))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter))
    state = dict(small.state_dict())
    assert repeat_groups(large, state) == (None if times == 1 else (old, new))
    large.load_state_dict(state)
    time = torch.arange(120)
    for name in ("bias", "slope"):
        picked = (
            getattr(bank, name)[timestep_group(time, 120, bank.groups)]
            for bank in ((small[0], large[0]) if name == "bias" else (small[1], large[1]))
        )
        assert torch.equal(*picked)


def test_groups_that_do_not_divide_stay_as_they_are():
    state = dict(TimestepBias(2, 3).state_dict())
    before = dict(state)
    assert repeat_groups(TimestepBias(3, 3), state) is None and repeat_groups(TimestepBias(1, 3), state) is None
    assert state.keys() == before.keys()


def test_the_working_type_is_found_as_torch_compile_can_trace_it(monkeypatch):
    """Dynamo of torch 2.11 cannot trace `is_autocast_available`, and networks were no single graph."""
    monkeypatch.delattr(torch.amp, "is_autocast_available")
    x = torch.empty(1)
    assert working_dtype(x) is torch.float32 and working_dtype(x.to("meta")) is torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert working_dtype(x) is torch.bfloat16 and working_dtype(x.to("meta")) is torch.float32

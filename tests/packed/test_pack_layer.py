"""`pack_layer`: 1-bit layers of any network, alone and in a Sequential; what cannot be packed is named."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import randomized
from torch import nn

from bidiffsr_arch.binary import BINARIZERS, BinaryConv2d
from bidiffsr_arch.binary.bank import TimestepRPReLU
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.packed import pack_layer

FEW = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


def conv(channels: int, filters: int, k: int = 3, method: str = "bbcu", **options) -> BinaryConv2d:
    return BinaryConv2d(channels, filters, k, BINARIZERS[method], **options)


def images(channels: int, height: int = 6, width: int = 9, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def assert_packed_is(layer: nn.Module, x: torch.Tensor, backend, group: torch.Tensor | None = None) -> None:
    """The same numbers to rounding: where a sign flipped, 2 * scale would be missing, a hundred times as much."""
    packed = pack_layer(randomized(layer), backend.name)
    arguments = (x,) if group is None else (x, group)
    expected = layer(*arguments)
    torch.testing.assert_close(packed(*arguments), expected, rtol=1e-4, atol=1e-5)
    assert all(block.unused for block in packed.arena._blocks)


@FEW
@given(st.sampled_from(sorted(BINARIZERS)), st.integers(2, 20), st.integers(1, 20), st.sampled_from([1, 3]))
def test_every_binarizer(backend, method, channels, filters, k):
    torch.manual_seed(0)
    assert_packed_is(conv(channels, filters, k, method), images(channels), backend)


def test_timestep_groups(backend):
    layer = conv(16, 16, shift_groups=3, rprelu_groups=3)
    assert_packed_is(layer, images(16, batch=3), backend, torch.tensor([2, 0, 1]))
    with pytest.raises(InputError, match="of 3 groups, got None"):
        pack_layer(layer, "torch")(images(16))


@pytest.mark.parametrize("scale", [2, 3])
def test_a_sequential(backend, scale):
    torch.manual_seed(0)
    layer = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.Sequential(conv(12, 12, method="bnn"), nn.Dropout(0.5), TimestepRPReLU(1, 12)),
        nn.Conv2d(12, 4 * scale**2, 1, bias=False),
        nn.PReLU(),
        nn.PixelShuffle(scale),
        conv(4, 4),
    )
    assert_packed_is(layer, images(3), backend)


def test_a_layer_in_place_may_be_the_only_one(backend):
    layer = nn.Sequential(nn.PReLU(5), conv(5, 5))
    with pytest.raises(InputError, match="first layer with a known number of channels"):
        pack_layer(layer, backend.name)
    assert_packed_is(nn.Sequential(nn.BatchNorm2d(5), conv(5, 5)), images(5), backend)


def test_a_layer_that_is_used_twice(backend):
    layer = conv(6, 6)
    assert_packed_is(nn.Sequential(layer, nn.PReLU(), layer), images(6), backend)


def padding_by_reflection(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")


class Scaled(BinaryConv2d):
    """A 1-bit convolution that does something else, too."""

    def forward(self, x: torch.Tensor, group: torch.Tensor | None = None) -> torch.Tensor:
        return 2 * super().forward(x, group)


REFUSED = {
    "1x1 or 3x3 to pack, got 5x5 at 0": lambda: conv(4, 4, 5),
    r"got 1: Conv2d\(4, 4, kernel_size=\(3, 3\), stride=\(2, 2\)": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
    r"got 1: Conv2d\(4, 4, kernel_size=\(3, 3\), stride=\(1, 1\)\)": lambda: nn.Conv2d(4, 4, 3),
    r"got 1: .*groups=2": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
    r"got 1: .*dilation=\(2, 2\)": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    r"got 1: .*padding_mode=reflect": lambda: padding_by_reflection(4),
    r"got 1: .*kernel_size=\(5, 5\)": lambda: nn.Conv2d(4, 4, 5, padding=2),
    r"got 1: GroupNorm": lambda: nn.GroupNorm(2, 4),
    r"got 1: Scaled": lambda: Scaled(4, 4, 3, BINARIZERS["bbcu"]),
    r"running statistics in 1 to pack": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


@pytest.mark.parametrize("message", REFUSED)
def test_layers_that_cannot_be_packed_are_named_in_one_line(message):
    odd = REFUSED[message]()
    layer = odd if type(odd) is BinaryConv2d else nn.Sequential(conv(4, 4), odd)
    with pytest.raises(InputError, match=message) as caught:
        pack_layer(layer, "torch")
    assert "\n" not in str(caught.value)


def test_modules_without_1_bit_layers_are_refused():
    with pytest.raises(InputError, match="expected a BinaryConv2d, or a Sequential with one, to pack, got Conv2d"):
        pack_layer(nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(InputError, match=r"\(B, 4, H, W\), got \(2, 3, 6, 9\)"):
        pack_layer(conv(4, 4), "torch")(images(3))


def test_training_mode_changes_nothing(backend):
    layer = randomized(nn.Sequential(conv(8, 8, method="bnn"), nn.Dropout(0.5)))
    packed = pack_layer(layer.train(), backend.name)
    assert layer.training
    with torch.no_grad():
        torch.testing.assert_close(packed(images(8)), layer.eval()(images(8)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_of_nan_does_not_affect_later_ones(backend, bad):
    """Padding channels lie in reused memory, where an earlier sample may have left NaN: 0 times NaN is NaN."""
    layer = randomized(
        nn.Sequential(nn.Conv2d(3, 20, 1), conv(20, 20), nn.PixelShuffle(2), conv(5, 5), nn.Conv2d(5, 3, 1))
    )
    x = images(3)
    expected = pack_layer(layer, backend.name)(x)
    for bad_samples in ([1], [0, 1]):
        packed, spoiled = pack_layer(layer, backend.name), x.clone()
        spoiled[bad_samples] = bad
        assert not packed(spoiled)[1].isfinite().all()
        np.testing.assert_array_equal(packed(x), expected)

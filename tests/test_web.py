"""`basicsr web`: what a visitor may do and may not, against the real Gradio and in a real browser."""

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tifffile
from child import run_code
from PIL import Image
from web_server import WebServer, function_index

from bidiffsr_arch.archs import BIDiffSRUNet
from bidiffsr_arch.cli import main
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.pretrained import save_pretrained
from bidiffsr_arch.upscale.photo import Photo, read_photo, write_photo
from bidiffsr_arch.upscale.plan import Job
from bidiffsr_arch.upscale.upscaler import Upscaler
from bidiffsr_arch.web import Limits
from bidiffsr_arch.web.models import Models
from bidiffsr_arch.web.preview import write_previews
from bidiffsr_arch.web.server import listen
from bidiffsr_arch.web.visitors import Visitors
from bidiffsr_arch.web.work import Cancelled, Result, upscale_images

pytestmark = pytest.mark.web
OPTIONS = dict(scale=2, diffuse="residual", beta_schedule=dict(n_timestep=100, num_inference_steps=3))


def pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# --- without Gradio -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--megapixels", "0"], "--megapixels above 0"),
        (["--seconds", "nan"], "--seconds above 0"),
        (["--upload-megabytes", "inf"], "--upload-megabytes above 0"),
        (["--images", "-1"], "--images above 0"),
        (["--queue", "0"], "--queue above 0"),
        (["--port", "70000"], "--port from 0 to 65535"),
    ],
)
def test_wrong_arguments_end_in_one_line(capsys, arguments, expected):
    assert main(["web", *arguments]) == 2
    line = capsys.readouterr().err
    assert expected in line and line.count("\n") == 1


def test_without_gradio_one_line_says_what_to_install():
    code = "from bidiffsr_arch.cli import main; sys.exit(main(['web']))"
    run = run_code(code, blocked=("gradio",))
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "install the extra web: pip install '.[web]'" in run.stderr


def test_arguments_are_read_without_torch_and_gradio():
    code = "from bidiffsr_arch.cli import build_parser; build_parser('web').parse_args(['web'])\n"
    run = run_code(code + "print(*{'torch', 'gradio', 'numpy'} & set(sys.modules))")
    assert (run.returncode, run.stdout) == (0, "\n"), run.stderr


@pytest.fixture
def tiny_weights(tiny_network: BIDiffSRUNet, tmp_path: Path) -> Path:
    """The tiny network at x2, in a folder called tiny."""
    network_g = {"type": "BIDiffSRUNet"} | tiny_network.arguments
    return save_pretrained(tiny_network, tmp_path / "tiny", OPTIONS | {"network_g": network_g})


def test_only_named_networks_are_on_offer(tiny_weights):
    models = Models([str(tiny_weights)], "cpu")
    assert models.scales() == [2, 4]
    assert models.names(2)[:2] == ["tiny", "BIDiffSR_small_x2 (fidelity)"]
    assert "BIDiffSR_small_x4_jpeg" in models.names(4)
    assert models.steps["tiny"] == 3 and models.upscaler("tiny", steps=2).timesteps == 2
    for name in (str(tiny_weights), "../tiny", "hf://owner/name"):
        with pytest.raises(InputError, match="expected weights to be one of tiny"):
            models.upscaler(name)


def test_each_set_of_parameters_is_on_offer(tiny_network, tmp_path):
    from bidiffsr_arch.packed import Description, pack, save_packed

    packed, network_g = pack(tiny_network, "torch"), {"type": "BIDiffSRUNet"} | tiny_network.arguments
    quick, slow = (Description(network_g, scale=2, steps=n, beta_schedule={"n_timestep": 100}) for n in (1, 4))
    save_packed(packed, tmp_path / "both.safetensors", quick, sets={"perceptual": (packed, slow)})
    models = Models([str(tmp_path / "both.safetensors")], "cpu")
    assert models.names(2)[:2] == ["both (fidelity)", "both (perceptual)"]
    assert [models.steps[name] for name in models.names(2)[:2]] == [1, 4]


def test_networks_need_different_names(tiny_weights, tmp_path):
    shutil.copytree(tiny_weights, tmp_path / "other" / "tiny")
    with pytest.raises(InputError, match="different names, got tiny twice"):
        Models([str(tiny_weights), str(tmp_path / "other" / "tiny")], "cpu")


LIMITS = Limits(megapixels=0.01, images=3)


def upscaled(
    upscaler: Upscaler, images: list[Path], folder: Path, limits: Limits = LIMITS, **settings: Any
) -> list[Result | InputError]:
    return list(upscale_images(upscaler, images, folder, limits, settings.pop("cancelled", Event()), **settings))


def test_each_image_gives_a_result_or_one_line(bicubic_upscaler, tmp_path):
    write_photo(tmp_path / "good.png", Photo(pixels(20, 30, 3, dtype=np.uint16)))
    write_photo(tmp_path / "large.png", Photo(pixels(40, 90, 3)))
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [tmp_path / name for name in ("bad.png", "good.png", "large.png")]
    bad, good, large = upscaled(bicubic_upscaler, images, tmp_path / "visitor")
    assert str(bad) == "expected a PNG, JPEG, WEBP, TIFF, BMP or AVIF image, got bad.png, which is not one"
    assert isinstance(good, Result) and good.file.name == "good.png"
    assert good.file.is_relative_to(tmp_path / "visitor")
    assert np.array_equal(read_photo(good.file).pixels, bicubic_upscaler(read_photo(tmp_path / "good.png").pixels))
    assert str(large) == (
        "large.png: expected a result of at most 0.01 megapixels, got 180x80 (0.0144); choose a smaller image or scale"
    )


def test_images_of_one_name_have_results_of_their_own(bicubic_upscaler, tmp_path):
    images = [tmp_path / folder / "after.jpg" for folder in ("a", "b")]
    for shade, image in enumerate(images):
        image.parent.mkdir()
        Image.new("RGB", (8, 8), (100 * shade,) * 3).save(image)
    first, second = upscaled(bicubic_upscaler, images, tmp_path / "visitor")
    assert [int(read_photo(result.file).pixels.mean()) for result in (first, second)] == [0, 100]


@pytest.mark.parametrize("count", [0, 4])
def test_the_number_of_images_is_limited(bicubic_upscaler, tmp_path, count):
    with pytest.raises(InputError, match=f"expected 1 to 3 images per request, got {count}"):
        upscaled(bicubic_upscaler, [tmp_path / "image.png"] * count, tmp_path)


def test_time_is_limited(bicubic_upscaler, tmp_path):
    write_photo(tmp_path / "image.png", Photo(pixels(20, 30, 3)))
    with pytest.raises(InputError, match="at most 1e-09 s, stopped there"):
        upscaled(bicubic_upscaler, [tmp_path / "image.png"], tmp_path, replace(LIMITS, seconds=1e-9))


def test_cancelling_ends_the_computation_after_the_current_tile(bicubic_upscaler, tmp_path):
    write_photo(tmp_path / "image.png", Photo(pixels(100, 1000, 3)))
    cancelled, seen = Event(), []

    def report(done: int, total: int, name: str) -> None:
        seen.append((done, total, name))
        cancelled.set()

    with pytest.raises(Cancelled):
        upscaled(bicubic_upscaler, [tmp_path / "image.png"], tmp_path, Limits(), cancelled=cancelled, report=report)
    total = bicubic_upscaler.calls(100, 1000)
    assert seen == [(1, total, "image.png")] and total > 5


def test_progress_counts_the_tiles_of_all_images(bicubic_upscaler, tmp_path):
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    for image in images:
        write_photo(image, Photo(pixels(20, 200, 3)))
    seen: list[tuple[int, int, str]] = []
    limits = replace(LIMITS, megapixels=1)
    upscaled(bicubic_upscaler, images, tmp_path, limits, report=lambda *now: seen.append(now))
    calls = bicubic_upscaler.calls(20, 200)
    assert calls > 1
    assert seen == [(n + 1, 2 * calls, "a.png" if n < calls else "b.png") for n in range(2 * calls)]


def test_what_cannot_be_kept_is_told(bicubic_upscaler, tmp_path):
    image = tmp_path / "image.jpg"
    Image.new("RGB", (8, 8)).save(image, exif=b"Exif\0\0broken")
    (result,) = upscaled(bicubic_upscaler, [image], tmp_path / "visitor")
    assert isinstance(result, Result)
    assert result.notes and all(note.startswith("image.jpg: ") for note in result.notes)


def test_previews_are_upright_8_bit_images_of_one_size(tmp_path):
    upright = Image.Exif()
    upright[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=upright)
    Image.new("RGB", (16, 8)).save(tmp_path / "result.jpg", exif=upright)
    for path in write_previews(tmp_path / "turned.jpg", tmp_path / "result.jpg", tmp_path / "a"):
        with Image.open(path) as image:
            assert image.size == (8, 16) and not image.getexif()

    deep = pixels(4, 8, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    before, _ = write_previews(tmp_path / "deep.tif", tmp_path / "deep.tif", tmp_path / "b")
    with Image.open(before) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        assert np.array_equal(np.asarray(image), deep // 257)


@pytest.mark.parametrize("place", ["image.png", "previews/image.webp", ""])
def test_messages_have_no_folders_of_the_server(bicubic_upscaler, tmp_path, monkeypatch, place):
    def fail(upscaler: Upscaler, job: Job, on_tile: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", str(job.target.parent / place))

    write_photo(tmp_path / "image.png", Photo(pixels(20, 30, 3)))
    monkeypatch.setattr("bidiffsr_arch.web.work.upscale_one", fail)
    (error,) = upscaled(bicubic_upscaler, [tmp_path / "image.png"], tmp_path / "visitor")
    assert "Permission denied" in str(error) and "image.png" in str(error) and "/" not in str(error).replace(place, "")


def test_visitors_own_only_their_folder(tmp_path):
    visitors = Visitors(tmp_path / "root")
    visitors.root.mkdir()
    mine, others = visitors.folder("mine"), visitors.folder("others")
    assert mine != others and "mine" not in mine.name
    (mine / "link").symlink_to("/etc/passwd")
    assert visitors.owns("mine", f"{mine}/1/image.png") and not visitors.owns("others", f"{mine}/1/image.png")
    for path in ("/etc/passwd", f"{mine}/../{others.name}/x", f"{mine}/link", f"{mine}x/a", "", "a\0b", "x" * 9999,
                 f"{mine}/../../../etc/passwd", "https://example.com/a.png"):  # fmt: skip
        assert not visitors.owns("mine", path), path
    assert not visitors.owns("made up", f"{mine}/1/image.png")
    assert {*visitors.root.iterdir()} == {mine, others}


def test_files_are_deleted_after_an_hour(tmp_path):
    visitors = Visitors(tmp_path)
    old, new = visitors.folder("old") / "1" / "image.png", visitors.folder("new") / "1" / "image.png"
    for path in (old, new):
        path.parent.mkdir()
        path.touch()
    for _ in range(3):  # deleting what is in a folder counts as writing to it
        for path in (old, old.parent, old.parent.parent):
            if path.exists():
                os.utime(path, (time.time() - 3601,) * 2)
        visitors.sweep()
        assert not old.exists() and new.exists()
    assert [path.name for path in tmp_path.iterdir()] == [new.parent.parent.name]


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 64])
def test_an_address_that_is_not_of_this_machine_is_named_in_one_line(host):
    with pytest.raises(InputError, match=rf"^expected a free --host and --port, got {re.escape(host)}:0 \(.+\)$"):
        listen(host, 0)


# --- the server ---------------------------------------------------------------------------------------------------

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="Gradio is not installed: make test-web")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of the package's own networks, with low limits; it connects to nobody, whatever the tests do."""
    limits = ("--megapixels", "0.5", "--upload-megabytes", "1", "--images", "4")
    running = WebServer(tmp_path_factory.mktemp("web"), *limits, "--device", "cpu")
    yield running
    running.stop()
    assert running.log.read_text() == ""


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition holds within some seconds."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A 16-bit PNG, 40x30."""
    write_photo(tmp_path / "image.png", Photo(pixels(30, 40, 3, dtype=np.uint16)))
    return tmp_path / "image.png"


def join(
    server: WebServer, cookie: str, image: str, where: str = "queue/join", *, steps: int = 1, tab: str = "abc"
) -> tuple[int, str]:
    """Ask for an upscaled image as the page does."""
    config = json.loads(server.ask("GET", "/config")[1])
    file = {"path": image, "meta": {"_type": "gradio.FileData"}}
    properties = [entry["props"] for entry in config["components"]]
    weights = next(entry["value"] for entry in properties if entry.get("elem_id") == "weights")
    data = [[file], weights, steps, 0]
    body = {"data": data, "fn_index": function_index(config, "upscale"), "session_hash": tab}
    kind = {"Content-Type": "application/json"}
    return server.ask("POST", f"/gradio_api/{where}", json.dumps(body).encode(), cookie, **kind)[:2]


@needs_gradio
def test_the_page_gives_a_cookie_that_scripts_and_other_sites_do_not_get(server):
    status, _, headers = server.ask("GET", "/")
    assert status == 200
    assert headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "set-cookie" not in server.ask("GET", "/", cookie="mine")[2]


@needs_gradio
def test_uploads_lie_in_the_visitors_folder_whatever_their_name(server, image):
    for name in ("image.png", "../../../escaped.png", "/etc/escaped.png", "a/../../b.png"):
        status, text = server.upload("mine", name, image.read_bytes())
        assert status == 200, text
        (path,) = json.loads(text)
        folder = Visitors(next(server.temporary.iterdir())).folder("mine")
        assert Path(path).resolve().parent.parent == folder and Path(path).read_bytes() == image.read_bytes()
    assert server.upload("mine", "..", image.read_bytes())[0] == 400
    assert not list(server.place.iterdir())


@needs_gradio
def test_visitors_get_their_own_files_alone(server, image):
    (path,) = json.loads(server.upload("mine", "image.png", image.read_bytes())[1])
    get = "/gradio_api/file="
    assert server.ask("GET", get + path, cookie="mine")[0] == 200
    own_folder = str(Path(path).parents[1])
    for cookie, other in [
        ("another", path),
        (None, path),
        ("mine", "/etc/passwd"),
        ("mine", f"{own_folder}/../../../../../../../../etc/passwd"),
        ("mine", f"{own_folder}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
        ("mine", "../../../../../../etc/passwd"),
        ("mine", "file:///etc/passwd"),
        ("mine", "https://example.com/"),
        ("mine", "http://127.0.0.1:22/"),
    ]:
        status, text, _ = server.ask("GET", get + other, cookie=cookie)
        assert status == 403 and text.startswith("expected ") and "\n" not in text, other


@needs_gradio
@pytest.mark.parametrize("where", ["queue/join", "run/predict"])
def test_requests_name_their_own_files_alone(server, image, where):
    (path,) = json.loads(server.upload("mine", "image.png", image.read_bytes())[1])
    for cookie, other in [
        ("another", path),
        ("mine", "/etc/passwd"),
        ("mine", f"{path}/../../../../../../../etc/passwd"),
        ("mine", "https://example.com/image.png"),
    ]:
        assert join(server, cookie, other, where) == (403, "expected files of your own, got another path")


@needs_gradio
def test_the_queue_cannot_be_bypassed(server, image):
    (path,) = json.loads(server.upload("mine", "image.png", image.read_bytes())[1])
    assert join(server, "mine", path, "run/predict")[0] >= 400
    assert join(server, "mine", path, "run/upscale")[0] >= 400


@needs_gradio
def test_requests_beyond_the_queue_are_refused_in_one_line(tmp_path):
    write_photo(tmp_path / "image.png", Photo(pixels(340, 340, 3)))
    server = WebServer(tmp_path / "web", "--device", "cpu", "--queue", "1")
    (path,) = json.loads(server.upload("mine", "image.png", (tmp_path / "image.png").read_bytes())[1])
    running, waiting, refused = (partial(join, server, "mine", path, steps=100, tab=tab) for tab in "abc")
    assert running()[0] == 200
    assert within(30, lambda: waiting()[0] == 200)  # the first one waits, too, until it is taken
    assert refused() == (503, '{"detail":"Queue is full. Max size is 1 and size is 1."}')
    server.stop()


@needs_gradio
def test_the_server_deletes_old_files_while_it_runs(server, image):
    paths = [Path(json.loads(server.upload("mine", "image.png", image.read_bytes())[1])[0]) for _ in range(2)]
    os.utime(paths[0], (time.time() - 3601,) * 2)
    assert within(10, lambda: not paths[0].exists()) and paths[1].exists()


@needs_gradio
@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=https://example.com", "/gradio_api/info", "/gradio_api/openapi.json", "/monitoring", "/docs",
     "/gradio_api/component_server", "/gradio_api/vibe-code", "/gradio_api/runs", "/gradio_api/call/upscale",
     "/gradio_api/process_recording", "/gradio_api/deep_link", "/gradio_api/dev/reload", "/gradio_api/stream/a"],
)  # fmt: skip
def test_nothing_but_the_page_is_served(server, path):
    for method in ("GET", "POST"):
        assert server.ask(method, path, cookie="mine")[:2] == (404, "no such page")


@needs_gradio
def test_uploads_are_limited(server):
    status, text = server.upload("mine", "image.png", bytes(1_500_000))
    assert status == 413 and "\n" not in text
    status, text = server.upload("mine", "image.png", bytes(5_000_000))
    assert (status, text) == (413, "expected at most 4 MB together, got 5")
    chunked = {"Content-Type": "multipart/form-data; boundary=xyz", "Content-Length": "x"}
    assert server.ask("POST", "/gradio_api/upload", b"", "mine", **chunked)[0] in (400, 411)
    assert not any(path.stat().st_size > 1_000_000 for path in server.files())


@needs_gradio
def test_other_names_of_the_server_are_refused(server):
    assert server.ask("GET", "/", Host="example.com")[0] == 400


@needs_gradio
def test_a_port_that_is_taken_is_named_in_one_line(server, capfd):
    assert main(["web", "--port", str(server.port), "--device", "cpu"]) == 2
    line = capfd.readouterr().err
    assert f"127.0.0.1:{server.port} ({os.strerror(errno.EADDRINUSE)})\n" in line and line.count("\n") == 1


# --- the browser --------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name, found in (("Playwright", find_spec("playwright")), ("Chromium", CHROMIUM)) if not found]
needs_browser = pytest.mark.skipif(
    bool(MISSING) or find_spec("gradio") is None,
    reason=f"{' and '.join(MISSING) or 'Gradio'} not installed: make test-web, and Debian's package chromium",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; its sandbox needs rights that containers do not have."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: WebServer) -> Iterator[Any]:
    """The loaded page of a new visitor; every request that it makes goes to the server."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    tab, hosts = context.new_page(), set()
    tab.on("request", lambda request: hosts.add(request.url.partition("//")[2].partition("/")[0]))
    tab.goto(server.url)
    tab.wait_for_selector("#upscale")
    yield tab
    context.close()
    assert {host for host in hosts if host} == {f"127.0.0.1:{server.port}"}


def upload(page: Any, *images: Path) -> None:
    page.set_input_files("#images input[type=file]", [str(image) for image in images])
    page.wait_for_function(f"document.querySelectorAll('#images .file').length == {len(images)}")
    page.wait_for_function("!document.querySelector('#images').innerText.includes('Uploading')")


def message(page: Any) -> str:
    page.wait_for_selector("#messages textarea", timeout=60_000)
    return page.locator("#messages textarea").input_value()


@needs_browser
def test_downloads_are_what_the_command_writes(page, image, tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a test", 6
    Image.fromarray(pixels(24, 32, 3)).save(tmp_path / "turned.jpg", exif=exif)
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, pixels(20, 24, dtype=np.uint16))
    images = [image, tmp_path / "turned.jpg", deep]
    page.locator("#scale").get_by_text("x4").click()
    page.wait_for_function("document.querySelector('#weights input').value.startsWith('BIDiffSR_small_x4')")
    page.fill("#seed input", "7")
    upload(page, *images)
    page.click("#upscale")
    page.wait_for_function("document.querySelectorAll('#downloads a').length == 3", timeout=120_000)
    assert main(["upscale", *map(str, images), "-o", str(tmp_path / "large"), "--scale", "4", "--seed", "7",
                 "--device", "cpu", "--quiet"]) == 0  # fmt: skip
    for number, name in enumerate(("image.png", "turned.jpg", "deep.tif")):
        with page.expect_download() as download:
            page.locator("#downloads a").nth(number).click()
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).read_bytes() == (tmp_path / "large" / name).read_bytes(), name
    assert read_photo(tmp_path / "large" / "image.png").pixels.dtype == np.uint16


@needs_browser
def test_the_slider_compares_and_zooms(page, image, tmp_path):
    write_photo(tmp_path / "wide.png", Photo(pixels(20, 60, 3)))
    upload(page, image, tmp_path / "wide.png")
    page.click("#upscale")
    page.wait_for_function("document.querySelectorAll('#downloads a').length == 2", timeout=120_000)

    def sizes() -> list[list[int]]:
        images = "[...document.querySelectorAll('#slider img')]"
        page.wait_for_function(f"{images}.every(image => image.naturalWidth)")
        return page.evaluate(f"{images}.map(image => [image.naturalWidth, image.naturalHeight])")

    assert sizes() == [[120, 40]] * 2
    page.click("#shown input")
    page.get_by_role("option", name="1. image.png").click()
    page.wait_for_function("document.querySelector('#slider img').naturalWidth == 80")
    assert sizes() == [[80, 60]] * 2

    width = "document.querySelector('#slider img').getBoundingClientRect().width"
    before = page.evaluate(width)
    box = page.locator("#slider img").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)  # the slider's handle is in the middle
    for _ in range(10):  # Gradio zooms by 5 % each time
        page.mouse.wheel(0, -100)
    page.wait_for_function(f"{width} > {before} * 1.2")


PROGRESS = r"/\d+\/\d+ tiles.*image\.png/s.test(document.querySelector('#slider').innerText)"


def written(server: WebServer) -> set[Path]:
    """The server's files that have content; `gradio.File` leaves an empty one for each image of a request."""
    return {path for path in server.files() if path.stat().st_size}


def ends_computing(server: WebServer) -> bool:
    """Whether the server is idle within half a minute."""
    deadline, spent = time.monotonic() + 30, server.processor_seconds()
    while time.monotonic() < deadline:
        time.sleep(2)
        before, spent = spent, server.processor_seconds()
        if spent - before < 0.5:
            return True
    return False


@needs_browser
def test_progress_is_shown_and_cancelling_ends_the_computation(page, server, tmp_path):
    write_photo(tmp_path / "image.png", Photo(pixels(340, 340, 3)))
    upload(page, tmp_path / "image.png")
    files = written(server)
    page.fill("#steps input", "100")
    page.click("#upscale")
    page.wait_for_function(PROGRESS, timeout=120_000)
    page.click("#cancel")
    assert message(page) == "cancelled"
    assert ends_computing(server) and written(server) == files
    page.fill("#steps input", "1")
    page.click("#upscale")
    page.wait_for_selector("#downloads a", timeout=60_000)


@needs_browser
def test_leaving_the_page_ends_the_computation(browser, server, tmp_path):
    write_photo(tmp_path / "image.png", Photo(pixels(340, 340, 3)))
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(server.url)
    upload(tab, tmp_path / "image.png")
    files = written(server)
    tab.fill("#steps input", "100")
    tab.click("#upscale")
    tab.wait_for_function(PROGRESS, timeout=120_000)
    context.close()
    assert ends_computing(server) and written(server) == files


@needs_browser
def test_what_is_too_large_or_no_image_is_refused_in_one_line(page, image, tmp_path):
    write_photo(tmp_path / "large.png", Photo(np.zeros((600, 600, 3), np.uint8)))
    (tmp_path / "bad.png").write_bytes(b"no image")
    upload(page, tmp_path / "large.png", tmp_path / "bad.png", image)
    page.click("#upscale")
    page.wait_for_selector("#downloads a", timeout=60_000)
    assert message(page).splitlines() == [
        "large.png: expected a result of at most 0.5 megapixels, got 1200x1200 (1.44); choose a smaller image or scale",
        "expected a PNG, JPEG, WEBP, TIFF, BMP or AVIF image, got bad.png, which is not one",
    ]


@needs_browser
def test_nothing_to_do_and_impossible_steps_are_told(page, image):
    page.click("#upscale")
    assert message(page) == "expected 1 to 4 images per request, got 0"
    upload(page, image)
    page.fill("#steps input", "100000")
    page.click("#upscale")
    page.wait_for_function("document.querySelector('#messages textarea')?.value.includes('100000')")
    assert message(page).count("\n") == 0


@needs_gradio
def test_the_server_ends_with_open_connections_and_leaves_nothing(image, tmp_path):
    server = WebServer(tmp_path / "web", "--device", "cpu")
    assert server.upload("mine", "image.png", image.read_bytes())[0] == 200 and server.files()
    with socket.create_connection(("127.0.0.1", server.port)):
        assert server.stop() == 128 + 15
    assert not server.files() and not list(server.place.iterdir())
    assert server.log.read_text() == ""

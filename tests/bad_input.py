"""Hundreds of wrong inputs made from correct ones, each of which must be refused."""

import copy
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import cv2
import numpy as np

WRONG_TEXTS = ["", 3, [1], {"a": 1}]
WRONG = {
    bool: ["yes, please", 3, None, [True], "True"],
    int: ["sixteen", -1.5, None, [4], {"a": 1}, True],
    float: ["1e-4x", None, [0.1], {"b": 2}, float("nan"), float("inf"), True],
    str: WRONG_TEXTS,
    list: ["a list", 5, None, {"c": 3}],
    dict: ["a block", 7, [1, 2]],
}
OUT_OF_RANGE = {
    "total_iter": [0, -5, 2.5], "lr": [0, -1e-4], "ema_decay": [1, -0.1, 2], "gt_size": [0, -16, 16.0],
    "batch_size_per_gpu": [0, -1], "num_worker_per_gpu": [-1, 1.5], "dataset_enlarge_ratio": [0, -2],
    "prefetch_mode": ["gpu", "CPU", 1, True], "filename_tmpl": ["{", "{0", "x4", "{}/{}", "{name}", "{1}"],
    "print_freq": [0, 0.5], "save_checkpoint_freq": [0, -1], "val_freq": [0], "manual_seed": [-1, 2**40, 1.5],
    "norm_groups": [0, 3, -4], "inner_channel": [0, -8, 1.5], "dropout": [-0.1, 1.5],
    "res_blocks": [0, -1, 10**9, 3e13], "image_size": [0, 10**12], "total_step": [0, 10**12],
    "dynamic_group": [0, -1], "channel_mults": [[], [1, 3], [2, 1], [0], ["a"]], "binarizer": ["BNN", "1bit"],
    "fusion": ["sum", "concatenate"], "rescale": ["bicubic"], "betas": [[0.9], [0.9, 1.0], [1, 2, 3], ["a", "b"]],
    "milestones": [[0.5], ["x"]], "keep_newest": [0, -1, 1.5], "num_gpu": [-1, "all", 1.5, [0]], "scale": [0, -2, 2.5],
    "name": ["..", "a/b", "."], "backend": [5], "port": [0, "a"], "better": ["more", "Higher"],
    "n_timestep": [0, -1, 2.5, 10**13], "num_inference_steps": [0, -3, 0.5], "prediction_type": ["noise", "x0"],
    "scheduler_type": ["DDIMM", "Euler2"], "schedule": ["quadratic", "lin"],
}  # fmt: skip
NEEDED = [
    ("name",), ("model_type",), ("num_gpu",), ("datasets",), ("path",), ("network_g",), ("scale",), ("train",),
    ("logger",), ("network_g", "type"), ("datasets", "train", "type"), ("datasets", "train", "name"),
    ("datasets", "train", "dataroot_gt"), ("datasets", "train", "dataroot_lq"), ("datasets", "train", "io_backend"),
    ("datasets", "train", "gt_size"), ("datasets", "train", "use_hflip"), ("datasets", "train", "use_rot"),
    ("datasets", "train", "num_worker_per_gpu"), ("datasets", "train", "batch_size_per_gpu"), ("datasets", "train"),
    ("datasets", "val", "dataroot_gt"), ("datasets", "val", "dataroot_lq"), ("datasets", "val", "io_backend"),
    ("datasets", "train", "io_backend", "type"), ("train", "optim_g"), ("train", "scheduler"), ("train", "total_iter"),
    ("train", "optim_g", "type"), ("train", "optim_g", "lr"), ("train", "scheduler", "type"),
    ("train", "scheduler", "milestones"), ("train", "pixel_opt", "type"), ("val", "val_freq"), ("val", "save_img"),
    ("val", "metrics", "psnr", "type"), ("logger", "print_freq"), ("logger", "save_checkpoint_freq"),
    ("logger", "use_tb_logger"),
]  # fmt: skip
# Keys whose values are not read, or may be of any type.
FREE = {"paper_row", "task", "guidance_scale", "is_guidance", "weights", "restart_weights", "reduction", "input_size"}
NULLS = {"manual_seed", "pretrain_network_g", "resume_state", "prefetch_mode", "suffix", "project", "resume_id", "val",
         "metrics"}  # fmt: skip


def leaves(block: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of nested dictionaries, with its path and value."""
    for key, value in block.items():
        yield (*place, key), value
        if isinstance(value, dict):
            yield from leaves(value, (*place, key))


def changed(options: dict[str, Any], place: tuple[str, ...], *value: Any, rename: str | None = None) -> dict[str, Any]:
    """A copy in which one key has another value, another name, or is missing."""
    result = copy.deepcopy(options)
    block = result
    for key in place[:-1]:
        block = block[key]
    if rename:
        items = [(rename if key == place[-1] else key, content) for key, content in block.items()]
        block.clear()
        block.update(items)
    elif value:
        block[place[-1]] = value[0]
    else:
        del block[place[-1]]
    return result


def bad_options(options: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Wrong option files by their mistake, each with a word that the message must contain."""
    cases = {}
    for place, value in leaves(options):
        key, shown = place[-1], ": ".join(place)
        is_name = place in {("datasets", "val"), ("datasets", "train"), ("val", "metrics", key)}
        if not is_name and place != ("find_unused_parameters",):
            misspelt = key[0] + key[2:] if len(key) > 4 else key + "e"
            cases[f"misspelt {shown}"] = changed(options, place, rename=misspelt), key
        wrong = [*OUT_OF_RANGE.get(key, [])]
        if key not in FREE and value is not None:
            wrong += [bad for bad in WRONG[type(value)] if not (bad is None and key in NULLS)]
        for bad in wrong:
            cases[f"{shown} = {bad!r}"] = changed(options, place, bad), key
    for place in NEEDED:
        cases[f"without {': '.join(place)}"] = changed(options, place), place[-1]
    return cases


BAD_TEXTS = [
    "", "   ", "# nothing\n", "[]", "3", "name", "- a\n- b", "a: [", "a: {", "a: 'b", "\ta: 1", "a: 1\na: 2",
    "a: &b *b",
    "a: *nowhere", "? [1, 2]\n: 3", "1: 2", "a: !!python/object/apply:os.system ['true']",
    "a: !!python/name:os.system", "!!python/object/new:os.system [x]", "a: !!binary ===", "a: !!int x", "a: !!float x",
    "a: !!timestamp x", "a: !unknown b", "a: 2024-13-45", "%YAML 9.9\n---\na: 1", "a: b: c", "a: |\nb", "\x00", "\x07",
    "{" * 2000, "a: " + "[" * 2000, "a: &x [1]\n<<: *x", "---\na: 1\n---\nb: 2", "base: 3", "base: [a]",
    "base: nowhere.yml", "base: bad.yml", "base: .", "base: ''",
]  # fmt: skip


def bad_option_bytes() -> dict[str, bytes]:
    """Files that are not option files."""
    return {repr(text[:40]): text.encode() for text in BAD_TEXTS} | {
        "UTF-16": "name: a".encode("utf-16"),
        "latin-1": "name: é".encode("latin-1"),
        "an image": cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes(),
        "random": np.random.default_rng(0).bytes(500),
    }


def an_image(height: int = 24, width: int = 20, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, channels), kind)


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def bad_images() -> dict[str, bytes]:
    """Files that are not complete images."""
    cases = {"empty": b"", "a text": b"not an image", "zeros": bytes(1000), "JSON": json.dumps({"a": 1}).encode(),
             "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
             "random": np.random.default_rng(1).bytes(2000)}  # fmt: skip
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff"):
        whole = encoded(suffix, an_image())
        for kept in (1, 4, 8, 16, 40, len(whole) // 4, len(whole) // 2, len(whole) * 3 // 4):
            cases[f"{suffix} of {kept} bytes"] = whole[:kept]
        if suffix != ".webp":  # OpenCV finds a WebP's frame by itself
            cases[f"{suffix} without its head"] = whole[20:]
    huge = bytearray(encoded(".png", an_image()))
    huge[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    return cases | {"a PNG that claims 2^31 pixels a side": bytes(huge)}


def odd_images() -> dict[str, bytes]:
    """Unusual images, which may be read or refused, but must not cause a traceback."""
    from PIL import Image

    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    whole = Image.fromarray(an_image())
    return {
        "16 bits": encoded(".png", an_image(kind=np.uint16)),
        "gray": encoded(".png", an_image(channels=1)),
        "alpha": encoded(".png", an_image(channels=4)),
        "1x1": encoded(".png", an_image(1, 1)),
        "1x20000": encoded(".png", an_image(1, 20000)),
        "20000x1": encoded(".png", an_image(20000, 1)),
        "palette": saved(whole.convert("P"), "PNG"),
        "CMYK": saved(whole.convert("CMYK"), "JPEG"),
        "animated GIF": saved(whole, "GIF", save_all=True, append_images=[whole.rotate(90)]),
        "animated PNG": saved(whole, "PNG", save_all=True, append_images=[whole.rotate(90)]),
        "a JPEG named PNG": encoded(".jpg", an_image()),
        "float TIFF": encoded(".tiff", an_image().astype(np.float32)),
        "one bit": saved(whole.convert("1"), "PNG"),
    }


def bad_checkpoints(whole: bytes) -> dict[str, bytes]:
    """Truncated checkpoint files, and files that are not checkpoints."""
    cases = {f"{part}/16 of it": whole[: len(whole) * part // 16] for part in range(16)}
    cases |= {f"its last {part}/4": whole[-len(whole) * part // 4 :] for part in (1, 2, 3)}
    return cases | {
        "a text": b"weights", "an image": encoded(".png", an_image()), "zeros": bytes(5000),
        "a zip's head": b"PK\x03\x04",
        "a pickle's head": b"\x80\x02", "an old pickle": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
        "random": np.random.default_rng(2).bytes(3000),
    }  # fmt: skip

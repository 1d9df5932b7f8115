"""Train a small BI-DiffSR at x4 on photographs that need no download, and compare it with bicubic upsampling.

Writes datasets/demo/ and experiments/demo_BIDiffSR_x4/ in the current directory (the folder of an earlier run is
renamed, not replaced). The last line reports both PSNRs and the folder of the images. The exit status is 1 if the
network is more than 0.1 dB below bicubic.
"""

import argparse
from pathlib import Path

from bidiffsr_arch.cli import train
from bidiffsr_arch.compat import require_basicsr
from bidiffsr_arch.errors import CheckFailed

EXAMPLE = "basicsr demo"
OPTION_FILE = "demo_BIDiffSR_x4"
PHOTOGRAPHS = "datasets/demo"
TOLERANCE = 0.1  # dB below bicubic that are accepted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Overrides of the demo's options."""
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="override options, as in train:total_iter=100",
    )


def run(args: argparse.Namespace) -> int:
    """Write the photographs, train, compare.

    Returns:
        0, or the exit status of training if a signal stopped it.
    Raises:
        CheckFailed: the network's PSNR is below bicubic's by more than 0.1 dB.
        InputError: BasicSR is not installed.
    """
    require_basicsr("`basicsr demo`")
    from bidiffsr_arch.config.file import load_options
    from bidiffsr_arch.config.shipped import shipped_path
    from bidiffsr_arch.data.demo import write_demo

    write_demo(PHOTOGRAPHS)
    training = argparse.ArgumentParser()
    train.add_arguments(training)
    option_file = str(shipped_path(OPTION_FILE))
    train_args = training.parse_args(["-opt", option_file])
    train_args.command, train_args.force_yml = "train", args.force_yml
    if stopped := train.run(train_args):
        return stopped

    options = load_options(option_file, args.force_yml)
    images = Path("experiments", options["name"], "visualization")
    psnr, bicubic_psnr = compare(options, images)
    print(f"demo: PSNR {psnr:.2f} dB, bicubic (cv2) {bicubic_psnr:.2f} dB, images in {images}")
    if psnr < bicubic_psnr - TOLERANCE:
        raise CheckFailed(f"expected at least bicubic's {bicubic_psnr:.2f} dB - {TOLERANCE} dB, got {psnr:.2f} dB")
    return 0


def compare(options: dict, images: Path) -> tuple[float, float]:
    """Mean PSNR (dB) of the saved results and of cv2's bicubic upsampling, with the settings of the validation.

    Also writes `strip.png` (LR | bicubic | result | HR, one row per image) into `images`, where BasicSR saved results.
    """
    import cv2
    from basicsr.metrics import calculate_metric

    from bidiffsr_arch.data.strip import strip
    from bidiffsr_arch.files import read_image, write_image

    dataset, rules = options["datasets"]["val"], options["val"]["metrics"]["psnr"]
    rows, scores = [], []
    for hr_path in sorted(Path(dataset["dataroot_gt"]).iterdir()):
        lr_name = dataset["filename_tmpl"].format(hr_path.stem)
        hr, lr = read_image(hr_path), read_image(Path(dataset["dataroot_lq"], f"{lr_name}.png"))
        newest = max(Path(images, lr_name).glob("*.png"), key=lambda path: path.stat().st_mtime)
        result = read_image(newest)
        bicubic = cv2.resize(lr, hr.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        rows.append({"LR": lr, "bicubic (cv2)": bicubic, "result": result, "HR": hr})
        scores.append([calculate_metric({"img": image, "img2": hr}, rules) for image in (result, bicubic)])
    write_image(images / "strip.png", strip(rows))
    psnr, bicubic_psnr = (sum(column) / len(column) for column in zip(*scores, strict=True))
    return psnr, bicubic_psnr

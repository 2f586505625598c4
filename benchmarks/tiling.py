"""What tiling changes in an image, and the memory that it takes.

    python -m benchmarks.tiling --data-dir DIR [--preset vqgan_tiny_imagenet]
        [--images 5] [--sides 1024 2048]

Seams: photographs of DIR/photos, their middle scaled to 512x512 pixels
(bicubic), in four tiles of 288 pixels with 64 in common. The same codes are
decoded in one piece, in tiles, and, as a program without tiling would do it,
in four pieces that are put side by side. PSNR is that of the 8-bit images
against the one piece. Seam: how much neighbouring pixels differ where pieces
meet, over how much they do elsewhere, relative to the same in the one piece: 1
is no seam. Whole way: encoded and decoded in tiles, against both in one piece.

Memory: the growth of the most memory that a process has held, through encode
and decode of one image of each side, in tiles of 256 pixels, and in one piece
at the smallest side. A process for each, on Linux.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks import timing

SIZE = 512
TILE = {"tile_size": 288, "overlap": 64}
MEMORY_TILE = 256


def photographs(data_dir, count: int) -> list:
    """Float images of shape (1, 512, 512, 3), spread over the folder."""
    from PIL import Image

    from keras_vq.models import VQGAN

    paths = sorted(pathlib.Path(data_dir, "photos").glob("*.jpg"))
    images = []
    for path in paths[:: len(paths) // count][:count]:
        image = Image.open(path).convert("RGB")
        scale = SIZE / min(image.size)
        sides = [max(SIZE, round(side * scale)) for side in image.size]
        pixels = np.asarray(image.resize(sides, Image.Resampling.BICUBIC))
        top, left = ((side - SIZE) // 2 for side in pixels.shape[:2])
        cut = pixels[top : top + SIZE, left : left + SIZE]
        images.append(np.asarray(VQGAN.preprocess(cut))[None])
    return images


def measure(model, images) -> dict:
    """Seams and PSNR of each way to decode, means over the images."""
    from keras_vq.models import Tiling

    found = {}
    for image in images:
        codes = np.asarray(model.encode(image))
        whole = np.asarray(model.decode(codes))
        ways = {"pieces": _pieces(model, codes)}
        for passes in (1, 2):
            plan = Tiling(**TILE, passes=passes)
            tiled = model.encode(image, tiling=plan)
            name = f"passes={passes}"
            ways[name] = model.decode(codes, tiling=plan)
            ways[f"{name}, whole way"] = model.decode(tiled, tiling=plan)
            changed = found.setdefault(f"{name}, codes changed", [])
            changed.append(float((tiled != codes).mean()))
        for name, seen in ways.items():
            figures = (psnr(seen, whole), seam(seen) / seam(whole))
            found.setdefault(name, []).append(figures)
    return {
        name: {
            "mean": np.mean(values, axis=0).tolist(),
            "lowest": np.min(values, axis=0).tolist(),
        }
        for name, values in found.items()
    }


def _pieces(model, codes):
    half = codes.shape[1] // 2
    rows = [
        [np.asarray(model.decode(part)) for part in np.split(row, 2, axis=2)]
        for row in (codes[:, :half], codes[:, half:])
    ]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)


def psnr(images, others) -> float:
    """In decibel, of the 8-bit images."""
    levels = [
        np.clip(np.rint((np.asarray(x, "float64") + 1) * 127.5), 0, 255)
        for x in (images, others)
    ]
    error = np.square(levels[0] - levels[1]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def seam(image, at: int = SIZE // 2) -> float:
    """Difference across the middle lines over that of all other neighbours."""
    ratios = []
    for axis in (1, 2):
        steps = np.abs(np.diff(np.asarray(image), axis=axis))
        steps = steps.mean(axis=(0, 3 - axis, 3))
        ratios.append(steps[at - 1] / np.delete(steps, at - 1).mean())
    return float(np.mean(ratios))


def _memory(preset: str, side: int, tile: int | None) -> dict:
    """Runs in a process of its own."""
    from keras_vq.models import VQAutoencoder

    model = VQAutoencoder.from_preset(preset)
    model.decode(model.encode(np.zeros((1, 64, 64, 3), "float32")))
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, side // 16, side // 16, 3)).astype("float32")
    image = image.repeat(16, axis=1).repeat(16, axis=2)
    # What loading took at most is forgotten.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _megabytes("VmRSS")
    codes = model.encode(image, tiling=tile)
    model.decode(codes, tiling=tile)
    return {"growth_mb": round(_megabytes("VmHWM") - before)}


def _megabytes(field: str) -> float:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"No {field} in /proc/self/status: this needs Linux.")


def memory(preset: str, sides: list) -> dict:
    """Growth of memory in MB, by side and tile."""
    found = {}
    for side, tile in [
        (min(sides), None),
        *((side, MEMORY_TILE) for side in sides),
    ]:
        command = [sys.executable, "-m", "benchmarks.tiling", "--of-one"]
        request = json.dumps([preset, side, tile])
        output = subprocess.run(
            [*command, request], check=True, capture_output=True, text=True
        ).stdout
        name = f"{side}x{side}, " + (f"tiles of {tile}" if tile else "whole")
        found[name] = json.loads(output.splitlines()[-1])["growth_mb"]
    return found


def main():
    """Measures, prints and writes results/tiling.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", default=os.environ.get("KERAS_VQ_DATA"))
    parser.add_argument("--preset", default="vqgan_tiny_imagenet")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--of-one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of_one:
        print(json.dumps(_memory(*json.loads(arguments.of_one))))
        return
    if not arguments.data_dir:
        raise SystemExit("Needs --data-dir, with photographs in photos/.")
    from keras_vq.models import VQAutoencoder

    model = VQAutoencoder.from_preset(arguments.preset)
    images = photographs(arguments.data_dir, arguments.images)
    result = {
        "images": len(images),
        "seams": measure(model, images),
        "growth_mb": memory(arguments.preset, arguments.sides),
    }
    for part in ("seams", "growth_mb"):
        for name, figures in result[part].items():
            print(f"{name:36} {figures}")
    timing.save("tiling", result, arguments.output)


if __name__ == "__main__":
    main()

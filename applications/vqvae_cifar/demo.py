"""Shows the bundled model at work, offline: reconstruct, then fine-tune.

    python applications/vqvae_cifar/demo.py --output demo.png

Run by its path (as `make demo` does), it quietens TensorFlow before anything
imports it.
"""

import argparse
import os
import time


def _import_keras_quietly() -> None:
    # TensorFlow writes to descriptor 2 before it reads its log level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if __name__ == "__main__":
    _import_keras_quietly()

import keras
import numpy as np

import keras_vq
from keras_vq import utils
from keras_vq.applications.samples import load_samples

STEPS = 40


def reconstruct(model, images: np.ndarray, path: str) -> None:
    """Encodes and decodes the images, and writes both beside each other."""
    codes = np.asarray(model.encode(images))
    seen = model.decode(codes)
    # Six times the size, pixel for pixel.
    sheet = utils.comparison_grid(images, seen, padding=6, scale=6)
    utils.write_png(path, sheet)

    count, height, width = images.shape[:3]
    bits = model.bits_per_image(height, width)
    raw = 8 * images[0].size
    size = model.quantizer.codebook_size
    print(f"\nReconstructing {count} photographs of {height}x{width} pixels")
    print(f"  PSNR            {psnr(images, seen):.2f} dB")
    print(f"  codes used      {len(np.unique(codes))} of {size}")
    print(f"  bits per image  {bits:.0f} (as pixels {raw}: {raw / bits:.0f}x)")
    print(f"  the picture     {path}: rows of originals, each above its")
    print("                  reconstructions")


def fine_tune(model, images: np.ndarray, steps: int) -> None:
    """Trains on the images and shows how the loss falls."""
    print(f"\nFine-tuning on them: model.fit, {steps} steps")
    model.compile(keras.optimizers.Adam(2e-4))
    before = psnr(images, model.predict(images, verbose=0))
    model.fit(
        images,
        batch_size=len(images),
        epochs=steps,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=_show)],
    )
    after = psnr(images, model.predict(images, verbose=0))
    print(f"  PSNR            {before:.2f} -> {after:.2f} dB")


def psnr(images, reconstruction) -> float:
    """Mean over the images of their PSNR as bytes, in decibel."""
    metric = keras_vq.metrics.PSNR()
    metric.update_state(images, reconstruction)
    return float(metric.result())


def _show(epoch: int, logs: dict) -> None:
    step = epoch + 1  # The batch holds all images: an epoch is one step.
    if step == 1 or step % 10 == 0:
        print(f"  step {step:3d}        loss {logs['loss']:.5f}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default="demo.png", help="PNG to write")
    parser.add_argument(
        "--preset", default="vqvae_cifar", help="name or folder"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args(argv)

    start = time.monotonic()
    keras.utils.set_random_seed(0)
    model = keras_vq.models.VQVAE.from_preset(arguments.preset)
    parameters = model.count_params() / 1e6
    print(
        f"keras_vq {keras_vq.__version__}: {arguments.preset}, "
        f"{parameters:.2f} million parameters"
    )
    images = model.preprocess(load_samples("vqvae_cifar", 32))
    reconstruct(model, images, arguments.output)
    fine_tune(model, images, arguments.steps)
    print(f"\nAll of it in {time.monotonic() - start:.0f} seconds.")


if __name__ == "__main__":
    main()

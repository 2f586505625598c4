"""VQ-VAE on CIFAR-10: 8x8 codes from 512, 576 bits an image.

Commands, the second for an accelerator, with a network of four times the
parameters:

    keras-vq train vqvae_cifar --data-dir DIR
    keras-vq train vqvae_cifar --data-dir DIR --variant large \
        --dtype mixed_bfloat16

DIR holds either `cifar10/train.tfrecord` and `cifar10/test.tfrecord`
(`tf.train.Example`s of encoded images), or the original files of CIFAR-10, in
the binary or the Python version, as unpacked from their archive. If
`cifar10/lossless_eval.npz` is there as well (`image`: uint8 NHWC), the figures
are measured on it, otherwise on the test images.

Expected: the figures of `results.json` beside this file, to 0.15 dB; of
`large` nothing was measured.
"""

import functools
import pathlib

import numpy as np

from keras_vq import data
from keras_vq.models import VQVAE
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import EvaluationSet, Recipe

_ORIGINALS = ("cifar-10-batches-bin", "cifar-10-batches-py")


def _build_model(recipe, dtype=None, width=128):
    return VQVAE(
        hidden_units=width,
        residual_units=width // 2,
        residual_blocks=3,
        codebook_size=512,
        codebook_dim=64,
        dtype=dtype,
        name=recipe.name,
    )


def _read(data_dir, split: str, **options):
    """One split, from whichever files there are."""
    data_dir = pathlib.Path(data_dir)
    for folder in (data_dir / "cifar10", data_dir):
        records = folder / f"{split}.tfrecord"
        if records.exists():
            return data.from_tfrecord(records, cache=True, **options)
        for name in _ORIGINALS:
            if (folder / name).is_dir():
                return data.from_cifar10(folder / name, split, **options)
    raise FileNotFoundError(
        f"No CIFAR-10 in {data_dir}. Expected: cifar10/{split}.tfrecord, or "
        f"one of the folders {', '.join(_ORIGINALS)} as unpacked from the "
        "original archive (https://www.cs.toronto.edu/~kriz/cifar.html)."
    )


def _train_data(data_dir, batch_size, seed):
    return _read(
        data_dir,
        "train",
        image_size=32,
        batch_size=batch_size,
        shuffle=True,
        flip=True,
        seed=seed,
        repeat=True,
    )


def _validation_data(data_dir, batch_size):
    batches = _read(data_dir, "test", image_size=32, batch_size=batch_size)
    return batches.take(-(-2000 // batch_size))


def _evaluation_set(data_dir):
    lossless = pathlib.Path(data_dir) / "cifar10" / "lossless_eval.npz"
    if lossless.exists():
        with np.load(lossless) as file:
            return EvaluationSet(
                file["image"],
                "CIFAR-10 training images with exact pixels, none of which "
                "this preset was trained on.",
            )
    batches = _read(data_dir, "test", image_size=32, batch_size=500)
    images = np.concatenate([VQVAE.postprocess(np.asarray(x)) for x in batches])
    return EvaluationSet(images, "the CIFAR-10 test images.")


RECIPE = Recipe(
    name="vqvae_cifar",
    summary="VQ-VAE on CIFAR-10: 32x32 images as 8x8 codes from 512.",
    data="CIFAR-10 training images (Krizhevsky, 2009), mirrored at random.",
    licence=(
        "Weights: Apache-2.0, as the package. Trained on CIFAR-10 "
        "(Krizhevsky, 2009), which is published for research without a "
        "licence of its own."
    ),
    build_model=_build_model,
    train_data=_train_data,
    validation_data=_validation_data,
    evaluation_set=_evaluation_set,
    steps=24_000,
    batch_size=128,
    optimizer=AdamPlan(1.5e-3, warmup_steps=500),
    weight_ema=0.999,
    steps_per_epoch=1000,
)

# As large as a bundled preset may be, nearly: 8 MB.
_LARGE = {
    "name": "vqvae_cifar_large",
    "build_model": functools.partial(_build_model, width=256),
    "steps": 50_000,
    "batch_size": 256,
    "optimizer": AdamPlan(1e-3, warmup_steps=500),
}

VARIANTS = {"large": Recipe(**{**vars(RECIPE), **_LARGE})}

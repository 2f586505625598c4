"""A small VQGAN on Tiny ImageNet: 64x64 images as 8x8 codes from 1024.

Commands, the second and third from the same first half, to compare the runs
with and without the discriminator:

    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir OUT \
        --stop-after 4000
    cp -r OUT WITHOUT
    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir WITHOUT \
        --resume --without-discriminator
    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir OUT \
        --resume --baseline WITHOUT

Without the comparison: `keras-vq train vqgan_tiny_imagenet --data-dir DIR`.

DIR holds `tiny_imagenet/train.tfrecord` and `tiny_imagenet/val.tfrecord`
(`tf.train.Example`s of encoded images), or the original data set as unpacked
from its archive, `tiny-imagenet-200`. The weights of LPIPS are found in
`DIR/weights` and in its subfolders, or where `keras_vq.losses.LPIPS` looks.

Expected: the figures of `results.json` beside this file.
"""

import pathlib

import numpy as np

from keras_vq import data
from keras_vq.applications.samples import load_samples
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQGAN, PatchGAN
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import EvaluationSet, Recipe

_CODES = 1024
_CODE_DIM = 32


def _build_model(recipe, dtype=None):
    return VQGAN(
        # Most of the time goes into the first two levels, most of the
        # parameters are in the last.
        base_channels=16,
        channel_multipliers=(1, 2, 4, 10),
        residual_blocks=1,
        attention_factors=(),
        latent_channels=64,
        groups=4,
        codebook_dim=_CODE_DIM,
        # A step uses each code once on average, and the encoder changes fast
        # at first: with the slower defaults most codes were lost by step 200,
        # and revival had not yet begun.
        quantizer=EMAVectorQuantizer(
            _CODES,
            _CODE_DIM,
            decay=0.97,
            revival_threshold=0.05,
            dtype=dtype,
            name="quantizer",
        ),
        discriminator=PatchGAN(
            filters=32, num_layers=2, dtype=dtype, name="discriminator"
        ),
        adversarial=recipe.adversarial_training(weight=0.8, warmup_steps=500),
        perceptual_loss="squeeze",
        dtype=dtype,
        name=recipe.name,
    )


def _read(data_dir, split: str, **options):
    """One split, from whichever files there are."""
    options = {"image_size": 64, **options}
    data_dir = pathlib.Path(data_dir)
    for folder in (data_dir / "tiny_imagenet", data_dir):
        records = folder / f"{split}.tfrecord"
        if records.exists():
            return data.from_tfrecord(records, cache=True, **options)
    for folder in (data_dir / "tiny-imagenet-200", data_dir):
        if (folder / split).is_dir():
            return data.from_folder(folder / split, cache=True, **options)
    raise FileNotFoundError(
        f"No Tiny ImageNet in {data_dir}. Expected: tiny_imagenet/"
        f"{split}.tfrecord, or the folder tiny-imagenet-200 as unpacked from "
        "the original archive (http://cs231n.stanford.edu/tiny-imagenet-200"
        ".zip)."
    )


def _train_data(data_dir, batch_size, seed):
    return _read(
        data_dir,
        "train",
        batch_size=batch_size,
        shuffle=True,
        flip=True,
        seed=seed,
        repeat=True,
    )


def _validation_data(data_dir, batch_size):
    return _read(data_dir, "val", batch_size=batch_size).take(
        -(-500 // batch_size)
    )


def _evaluation_set(data_dir):
    batches = _read(data_dir, "val", batch_size=500)
    images = np.concatenate([VQGAN.postprocess(x.numpy()) for x in batches])
    return EvaluationSet(
        images,
        "Tiny ImageNet validation images, decoded from JPEG.",
        load_samples("vqgan_tiny_imagenet", 64),
    )


RECIPE = Recipe(
    name="vqgan_tiny_imagenet",
    summary="VQGAN on Tiny ImageNet: 64x64 images as 8x8 codes from 1024.",
    data="Tiny ImageNet training images, mirrored at random.",
    licence=(
        "Weights: Apache-2.0, as the package. Trained on Tiny ImageNet, a "
        "part of ImageNet (Russakovsky et al., 2015), whose images are for "
        "non-commercial research and education."
    ),
    build_model=_build_model,
    train_data=_train_data,
    validation_data=_validation_data,
    evaluation_set=_evaluation_set,
    steps=8_000,
    batch_size=16,
    optimizer=AdamPlan(1e-3, warmup_steps=200),
    discriminator_optimizer=AdamPlan(4e-4, warmup_steps=100, beta_1=0.5),
    discriminator_start=0.5,
    lpips="squeeze",
    weight_ema=0.999,
    steps_per_epoch=500,
)

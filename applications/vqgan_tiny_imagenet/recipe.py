"""A small VQGAN on Tiny ImageNet: 64x64 images as 8x8 codes from 1024.

Commands, the second and third from the same first half, to compare the runs
with and without the discriminator:

    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir OUT \
        --stop-after 3000
    cp -r OUT WITHOUT
    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir WITHOUT \
        --resume --without-discriminator
    keras-vq train vqgan_tiny_imagenet --data-dir DIR --output-dir OUT \
        --resume --baseline WITHOUT

Without the comparison: `keras-vq train vqgan_tiny_imagenet --data-dir DIR`. For
an accelerator, with more layers and a larger discriminator: the same with
`--variant large --dtype mixed_bfloat16`.

DIR holds `tiny_imagenet/train.tfrecord` and `tiny_imagenet/val.tfrecord`
(`tf.train.Example`s of encoded images), or the original data set as unpacked
from its archive, `tiny-imagenet-200`. The weights of LPIPS are found in
`DIR/weights` and in its subfolders, or where `keras_vq.losses.LPIPS` looks.

Expected: the figures of `results.json` beside this file; of `large` nothing was
measured.
"""

import functools

from keras_vq.applications import tiny_imagenet
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQGAN, PatchGAN
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import Recipe

_CODES = 1024
_CODE_DIM = 32


# Most of the time goes into the first two levels, most of the parameters are in
# the last.
_NETWORKS = {
    "base_channels": 16,
    "channel_multipliers": (1, 2, 4, 10),
    "residual_blocks": 1,
}
# With its discriminator 11 MB in float16; a bundled preset may have 12.
_LARGE_NETWORKS = {
    "base_channels": 32,
    "channel_multipliers": (1, 2, 3, 4),
    "residual_blocks": 2,
}


def _build_model(recipe, dtype=None, networks=_NETWORKS, filters=32):
    return VQGAN(
        **networks,
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
            filters=filters, num_layers=2, dtype=dtype, name="discriminator"
        ),
        adversarial=recipe.adversarial_training(weight=0.2, warmup_steps=500),
        perceptual_loss="squeeze",
        dtype=dtype,
        name=recipe.name,
    )


RECIPE = Recipe(
    name="vqgan_tiny_imagenet",
    summary="VQGAN on Tiny ImageNet: 64x64 images as 8x8 codes from 1024.",
    data=tiny_imagenet.TRAINING_IMAGES,
    licence=tiny_imagenet.LICENCE,
    build_model=_build_model,
    train_data=tiny_imagenet.train_data,
    validation_data=tiny_imagenet.validation_data,
    evaluation_set=tiny_imagenet.evaluation_set,
    steps=5_000,
    batch_size=16,
    optimizer=AdamPlan(1e-3, warmup_steps=200),
    discriminator_optimizer=AdamPlan(2e-4, warmup_steps=100, beta_1=0.5),
    discriminator_start=0.6,
    lpips="squeeze",
    weight_ema=0.999,
    steps_per_epoch=500,
)

_LARGE = {
    "name": "vqgan_tiny_imagenet_large",
    "build_model": functools.partial(
        _build_model, networks=_LARGE_NETWORKS, filters=64
    ),
    "steps": 40_000,
    "batch_size": 32,
    "steps_per_epoch": 1000,
}

VARIANTS = {"large": Recipe(**{**vars(RECIPE), **_LARGE})}

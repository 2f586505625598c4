"""VQ-VAE-2 on Tiny ImageNet: 64x64 images as 8x8 and 16x16 codes from 512.

Commands, the second to compare with one level of nearly as many bits, the third
for an accelerator, with a network of three times the parameters:

    keras-vq train vqvae2_tiny_imagenet --data-dir DIR
    keras-vq train vqvae2_tiny_imagenet --data-dir DIR --variant one_level
    keras-vq train vqvae2_tiny_imagenet --data-dir DIR --variant large \
        --dtype mixed_bfloat16

DIR holds `tiny_imagenet/train.tfrecord` and `tiny_imagenet/val.tfrecord`
(`tf.train.Example`s of encoded images), or the original data set as unpacked
from its archive, `tiny-imagenet-200`. The weights of LPIPS are found in
`DIR/weights` and in its subfolders, or where `keras_vq.losses.LPIPS` looks.

Expected: the figures of `results.json` beside this file; of `large` nothing was
measured.
"""

import functools

from keras_vq.applications import tiny_imagenet
from keras_vq.models import VQVAE, VQVAE2
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import Recipe

_SIZES = {"hidden_units": 128, "residual_units": 64, "residual_blocks": 2}
# 11 MB in float16; a bundled preset may have 12.
_LARGE_SIZES = {
    "hidden_units": 224,
    "residual_units": 112,
    "residual_blocks": 3,
}


def _build_model(recipe, dtype=None, sizes=_SIZES):
    return VQVAE2(
        downsample_factors=(4, 2), **sizes, dtype=dtype, name=recipe.name
    )


def _build_one_level(recipe, dtype=None):
    return VQVAE(**_SIZES, codebook_size=2048, dtype=dtype, name=recipe.name)


RECIPE = Recipe(
    name="vqvae2_tiny_imagenet",
    summary="VQ-VAE-2 on Tiny ImageNet: 64x64 images as 8x8 and 16x16 codes.",
    data=tiny_imagenet.TRAINING_IMAGES,
    licence=tiny_imagenet.LICENCE,
    build_model=_build_model,
    train_data=tiny_imagenet.train_data,
    validation_data=tiny_imagenet.validation_data,
    evaluation_set=tiny_imagenet.evaluation_set,
    steps=10_000,
    batch_size=32,
    # At 1e-3 the coarse level falls out of use: the fine one outruns it.
    optimizer=AdamPlan(3e-4, warmup_steps=100),
    lpips="squeeze",
    weight_ema=0.999,
    steps_per_epoch=1000,
)

_ONE_LEVEL = {
    "name": "vqvae2_tiny_imagenet_one_level",
    "summary": "VQ-VAE on Tiny ImageNet: 64x64 images as 16x16 codes from "
    "2048, to compare VQ-VAE-2 with.",
    "build_model": _build_one_level,
}

_LARGE = {
    "name": "vqvae2_tiny_imagenet_large",
    "build_model": functools.partial(_build_model, sizes=_LARGE_SIZES),
    "steps": 40_000,
    "batch_size": 64,
}

VARIANTS = {
    variant: Recipe(**{**vars(RECIPE), **changes})
    for variant, changes in {"one_level": _ONE_LEVEL, "large": _LARGE}.items()
}

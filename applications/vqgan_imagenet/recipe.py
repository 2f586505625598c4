"""VQGANs on ImageNet: 256x256 images as 16x16 codes.

Commands:

    keras-vq train vqgan_imagenet --data-dir DIR --strategy mirrored
    keras-vq train vqgan_imagenet --data-dir DIR --variant k16384
    keras-vq train vqgan_imagenet --data-dir DIR --variant l2

The first two follow the original (Esser et al., 2021), with 1024 and with
16384 codes; `l2` is the tokenizer of LlamaGen (Sun et al., 2024), with 16384
codes of 8 dimensions and unit length.

DIR holds one of

- `imagenet2012/`, as prepared by tensorflow-datasets (the extra `datasets`);
- TFRecords: `train*` and `validation*`, either ending in `.tfrecord`, with the
  encoded picture under `image`, or the usual `train-00000-of-01024` with
  `image/encoded`;
- the folders `train/` and `val/` (or `validation/`) of pictures.

With keras-cv (the extra `cv`) its `RandomCropAndResize` cuts the training
images, otherwise a random square does. VGG16's weights for LPIPS are found in
`DIR/weights`, or where `keras_vq.losses.LPIPS` looks. Memory: see
`--accumulation-steps` and `--dtype mixed_bfloat16`.

Expected: not measured; no weights of these recipes are bundled.
"""

import functools

import keras

from keras_vq.applications import imagenet
from keras_vq.layers import VectorQuantizer
from keras_vq.models import VQGAN, PatchGAN
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import Recipe


def _build_original(recipe, dtype=None, codes=1024, discriminator_layers=3):
    weight = 0.8 if discriminator_layers == 3 else 0.75
    quantizer = VectorQuantizer(
        codes,
        256,
        # As in the original: no start from data, and no revival.
        codebook_initializer=keras.initializers.RandomUniform(
            -1 / codes, 1 / codes
        ),
        revival_threshold=0.0,
        dtype=dtype,
        name="quantizer",
    )
    return VQGAN(
        quantizer=quantizer,
        codebook_dim=256,
        codebook_weight=1.0,
        commitment_weight=0.25,
        discriminator=PatchGAN(
            num_layers=discriminator_layers, dtype=dtype, name="discriminator"
        ),
        adversarial=recipe.adversarial_training(weight=weight),
        perceptual_loss="vgg",
        dtype=dtype,
        name=recipe.name,
    )


def _build_l2(recipe, dtype=None):
    quantizer = VectorQuantizer(
        16384, 8, l2_normalize=True, dtype=dtype, name="quantizer"
    )
    return VQGAN(
        quantizer=quantizer,
        codebook_dim=8,
        reconstruction_loss="mse",
        discriminator=PatchGAN(dtype=dtype, name="discriminator"),
        adversarial=recipe.adversarial_training(
            weight=0.5, adaptive_weight=False
        ),
        perceptual_loss="vgg",
        dtype=dtype,
        name=recipe.name,
    )


# The recipes


RECIPE = Recipe(
    name="vqgan_imagenet",
    summary="VQGAN on ImageNet: 256x256 images as 16x16 codes from 1024.",
    data=imagenet.TRAINING_IMAGES,
    licence=imagenet.LICENCE,
    build_model=_build_original,
    train_data=imagenet.train_data,
    validation_data=imagenet.validation_data,
    evaluation_set=imagenet.evaluation_set,
    # The length is ours: as many steps with the discriminator as without.
    steps=500_000,
    batch_size=256,
    optimizer=AdamPlan(
        4.5e-6, decay=None, beta_1=0.5, beta_2=0.9, per_image=True
    ),
    discriminator_optimizer=AdamPlan(
        4.5e-6, decay=None, beta_1=0.5, beta_2=0.9, per_image=True
    ),
    discriminator_start=250_001,
    lpips="vgg",
    weight_ema=None,
    steps_per_epoch=5000,
)

_K16384 = {
    "name": "vqgan_imagenet_k16384",
    "summary": "VQGAN on ImageNet: 256x256 images as 16x16 codes from 16384.",
    "build_model": functools.partial(
        _build_original, codes=16384, discriminator_layers=2
    ),
    "discriminator_start": 0,
}

_L2 = {
    "name": "vqgan_imagenet_l2",
    "summary": (
        "VQGAN on ImageNet: 256x256 images as 16x16 codes from 16384 of 8 "
        "dimensions and unit length."
    ),
    "build_model": _build_l2,
    "steps": 400_000,
    "batch_size": 128,
    "optimizer": AdamPlan(1e-4, decay=None, beta_2=0.95),
    "discriminator_optimizer": AdamPlan(1e-4, decay=None, beta_2=0.95),
    "discriminator_start": 20_000,
    "clipnorm": 1.0,
}

VARIANTS = {
    variant: Recipe(**{**vars(RECIPE), **changes})
    for variant, changes in {"k16384": _K16384, "l2": _L2}.items()
}

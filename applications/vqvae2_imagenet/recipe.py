"""VQ-VAE-2 on ImageNet: 256x256 images as 32x32 and 64x64 codes from 512.

Command:

    keras-vq train vqvae2_imagenet --data-dir DIR --strategy mirrored

The networks, the batch and the number of steps are those of the paper (Razavi
et al., 2019, table 4); the learning rate is rosinality's.

DIR holds ImageNet as for `vqgan_imagenet`: as prepared by tensorflow-datasets,
TFRecords, or folders of pictures. Memory: see `--accumulation-steps` and
`--dtype mixed_bfloat16`.

Expected: not measured; no weights of this recipe are bundled.
"""

from keras_vq.applications import imagenet
from keras_vq.models import VQVAE2
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import Recipe


def _build_model(recipe, dtype=None):
    return VQVAE2(downsample_factors=(4, 2), dtype=dtype, name=recipe.name)


RECIPE = Recipe(
    name="vqvae2_imagenet",
    summary="VQ-VAE-2 on ImageNet: 256x256 images as codes of two levels.",
    data=imagenet.TRAINING_IMAGES,
    licence=imagenet.LICENCE,
    build_model=_build_model,
    train_data=imagenet.train_data,
    validation_data=imagenet.validation_data,
    evaluation_set=imagenet.evaluation_set,
    steps=2_207_444,
    batch_size=128,
    optimizer=AdamPlan(3e-4, decay=None),
    weight_ema=None,
    steps_per_epoch=5000,
)

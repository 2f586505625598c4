"""VQ-VAE-2 on FFHQ: faces as codes of two levels, or of three.

Commands:

    keras-vq train vqvae2_ffhq --data-dir DIR --strategy mirrored
    keras-vq train vqvae2_ffhq --data-dir DIR --strategy mirrored \
        --variant 1024 --dtype mixed_bfloat16

The first makes 32x32 and 64x64 codes of 256x256 pixels. The second is the
paper's (Razavi et al., 2019, table 4): 32x32, 64x64 and 128x128 codes of
1024x1024 pixels. Networks, batch and number of steps are the paper's, the
learning rate is rosinality's. The second computes its batch in 8 parts, and
its networks anew in the backward pass, to fit into memory.

DIR holds one of

- TFRecords of the FFHQ data set, such as `ffhq-r10.tfrecords` (1024 pixels)
  or `ffhq-r08.tfrecords` (256 pixels), in `DIR` or in `DIR/ffhq`;
- the folder `images1024x1024` of the FFHQ data set;
- any pictures, in folders or not.

The last seventh of the images (of FFHQ 10,000, as its authors have it) is for
validation. With keras-cv (the extra `cv`) its `RandomCropAndResize` cuts the
training images, otherwise a random square does.

Expected: not measured; no weights of these recipes are bundled.
"""

import functools
import pathlib

from keras_vq import data
from keras_vq.applications.imagenet import in_memory, random_cuts
from keras_vq.models import VQVAE2
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import EvaluationSet, Recipe

_TRAINING, _VALIDATION = (0.0, 6 / 7), (6 / 7, 1.0)


def _build_model(recipe, dtype=None, **arguments):
    return VQVAE2(**arguments, dtype=dtype, name=recipe.name)


def _read(data_dir, image_size, **options):
    """All images, from whichever files there are."""
    options["image_size"] = image_size
    data_dir = pathlib.Path(data_dir)
    for folder in (data_dir, data_dir / "ffhq"):
        if records := _records(folder, image_size):
            return data.from_tfrecord(
                records, image_key="data", shape_key="shape", **options
            )
    for name in ("images1024x1024", "ffhq/images1024x1024"):
        if (data_dir / name).is_dir():
            return data.from_folder(data_dir / name, **options)
    return data.from_folder(data_dir, **options)


def _records(folder, image_size):
    """The TFRecord of the smallest images that are large enough, or None."""
    for level in range(2, 11):
        files = sorted(folder.glob(f"*-r{level:02}.tfrecords"))
        if files and 2**level >= image_size:
            return files
    return None


def _train_data(data_dir, batch_size, seed, image_size):
    return _read(
        data_dir,
        image_size,
        batch_size=batch_size,
        subset=_TRAINING,
        shuffle=True,
        flip=True,
        seed=seed,
        repeat=True,
        **random_cuts(image_size),
    )


def _validation(data_dir, batch_size, image_size, count):
    batches = _read(
        data_dir, image_size, batch_size=batch_size, subset=_VALIDATION
    )
    return batches.take(-(-count // batch_size))


def _evaluation_set(data_dir, image_size, count):
    batches = _validation(data_dir, 50, image_size, count)
    return EvaluationSet(
        in_memory(batches),
        f"the first images of the last seventh, the shorter side scaled to "
        f"{image_size} pixels (bicubic, antialiased), the middle cut out.",
    )


def _data(image_size, evaluated):
    """How a recipe of one size of images reads them."""
    size = {"image_size": image_size}
    return {
        "train_data": functools.partial(_train_data, **size),
        "validation_data": functools.partial(_validation, **size, count=500),
        "evaluation_set": functools.partial(
            _evaluation_set, **size, count=evaluated
        ),
    }


RECIPE = Recipe(
    name="vqvae2_ffhq",
    summary="VQ-VAE-2 on FFHQ: 256x256 images as codes of two levels.",
    data="FFHQ training images (Karras et al., 2019), cut out and mirrored "
    "at random.",
    licence=(
        "Weights: Apache-2.0, as the package. Trained on FFHQ (Karras et al., "
        "2019), whose images have licences of their own, all of which allow "
        "non-commercial use (CC BY-NC-SA 4.0 as a whole)."
    ),
    build_model=functools.partial(_build_model, downsample_factors=(4, 2)),
    **_data(256, evaluated=5000),
    steps=304_741,
    batch_size=128,
    optimizer=AdamPlan(3e-4, decay=None),
    weight_ema=None,
    steps_per_epoch=1000,
)

_1024 = {
    "name": "vqvae2_ffhq_1024",
    "summary": "VQ-VAE-2 on FFHQ: 1024x1024 images as codes of three levels.",
    "build_model": functools.partial(
        _build_model,
        downsample_factors=(8, 2, 2),
        gradient_checkpointing=True,
    ),
    "accumulation_steps": 8,
    **_data(1024, evaluated=500),
}

VARIANTS = {"1024": Recipe(**{**vars(RECIPE), **_1024})}

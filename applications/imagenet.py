"""ImageNet as the recipes read it: tfds, TFRecords or folders."""

import importlib.util
import pathlib
import warnings

import numpy as np

from keras_vq import data
from keras_vq.models import VQAutoencoder
from keras_vq.training.recipe import EvaluationSet

LICENCE = (
    "Weights: Apache-2.0, as the package. Trained on ImageNet "
    "(Russakovsky et al., 2015), whose images are for non-commercial "
    "research and education."
)
TRAINING_IMAGES = "ImageNet training images, cut out and mirrored at random."
# Pixels of the shorter side before a random part of it is cut out.
_RESIZE = 288 / 256
_EVALUATED = 5000


def train_data(data_dir, batch_size, seed, image_size=256):
    """Endless training images, see `Recipe`."""
    return _read(
        data_dir,
        ("train",),
        image_size=image_size,
        batch_size=batch_size,
        shuffle=True,
        flip=True,
        seed=seed,
        repeat=True,
        # Many a copy of ImageNet has a few damaged files.
        on_error="skip",
        **random_cuts(image_size),
    )


def validation_data(data_dir, batch_size, image_size=256):
    """The first 1,000 validation images, see `Recipe`."""
    return _validation(data_dir, batch_size, 1000, image_size)


def evaluation_set(data_dir, image_size=256):
    """The first 5,000 validation images."""
    batches = _validation(data_dir, 100, _EVALUATED, image_size)
    return EvaluationSet(
        in_memory(batches),
        f"the first ImageNet validation images, the shorter side scaled to "
        f"{image_size} pixels (bicubic, antialiased), the middle cut out.",
    )


def random_cuts(image_size: int) -> dict:
    """Options of `keras_vq.data` that cut training images out."""
    resize = round(image_size * _RESIZE)
    needed = {"keras_cv": "keras_vq[cv]", "tensorflow": "keras_vq[cpu]"}
    missing = [n for n in needed if not importlib.util.find_spec(n)]
    if not missing:
        return {"resize": resize, "augment": "random_resized_crop"}
    extras = " ".join(needed[name] for name in missing)
    warnings.warn(
        f"{' and '.join(missing)} not installed (`pip install {extras}`): "
        "training images are random squares of one scale.",
        stacklevel=2,
    )
    return {"resize": resize, "crop": "random"}


def in_memory(batches) -> np.ndarray:
    """Batches of a dataset as one uint8 array."""
    return np.concatenate(
        [VQAutoencoder.postprocess(np.asarray(images)) for images in batches]
    )


def _validation(data_dir, batch_size, count, image_size):
    batches = _read(
        data_dir,
        ("validation", "val"),
        image_size=image_size,
        batch_size=batch_size,
    )
    return batches.take(-(-count // batch_size))


def _read(data_dir, splits, **options):
    """One split, from whichever files there are."""
    data_dir = pathlib.Path(data_dir)
    if (data_dir / "imagenet2012").is_dir():
        name = "imagenet2012"
        return data.from_tfds(name, splits[0], data_dir=data_dir, **options)
    for split in splits:
        if sorted(data_dir.glob(f"{split}*.tfrecord")):
            files = str(data_dir / f"{split}*.tfrecord")
            return data.from_tfrecord(files, **options)
        if sorted(data_dir.glob(f"{split}-*-of-*")):
            files = str(data_dir / f"{split}-*-of-*")
            return data.from_tfrecord(
                files, image_key="image/encoded", **options
            )
        if (data_dir / split).is_dir():
            return data.from_folder(data_dir / split, **options)
    raise FileNotFoundError(
        f"No images of ImageNet in {data_dir}. Expected: imagenet2012/ as "
        "prepared by tensorflow-datasets, TFRecords such as "
        f"{splits[0]}*.tfrecord or {splits[0]}-00000-of-01024, or a folder "
        f"{' or '.join(splits)} of pictures."
    )

"""Tiny ImageNet as the recipes read it: 64x64 images of 200 classes."""

import pathlib

from keras_vq import data
from keras_vq.applications.imagenet import in_memory
from keras_vq.applications.samples import load_samples
from keras_vq.training.recipe import EvaluationSet

LICENCE = (
    "Weights: Apache-2.0, as the package. Trained on Tiny ImageNet, a "
    "part of ImageNet (Russakovsky et al., 2015), whose images are for "
    "non-commercial research and education."
)
TRAINING_IMAGES = "Tiny ImageNet training images, mirrored at random."


def train_data(data_dir, batch_size, seed):
    """Endless training images, see `Recipe`."""
    return _read(
        data_dir,
        "train",
        batch_size=batch_size,
        shuffle=True,
        flip=True,
        seed=seed,
        repeat=True,
    )


def validation_data(data_dir, batch_size):
    """The first 500 validation images, see `Recipe`."""
    batches = _read(data_dir, "val", batch_size=batch_size)
    return batches.take(-(-500 // batch_size))


def evaluation_set(data_dir):
    """All validation images."""
    return EvaluationSet(
        in_memory(_read(data_dir, "val", batch_size=500)),
        "Tiny ImageNet validation images, decoded from JPEG.",
        load_samples("vqgan_tiny_imagenet", 64),
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

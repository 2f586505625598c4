"""Batches that several devices cannot share are refused before training."""

import keras
import networks
import numpy as np
import pytest
from feeding import Batches
from replicas import compile_model, number

import keras_vq
from keras_vq.models import VQAutoencoder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="only on JAX have all devices the same number of images",
)
IMAGES = networks.images(20, 8, 8, 3)


@pytest.fixture
def model(two_devices):
    with two_devices.scope():
        model = VQAutoencoder(
            networks.encoder(),
            keras_vq.layers.EMAVectorQuantizer(8, 4),
            networks.decoder(),
        )
        yield compile_model(model)


def _pipeline(count, **options):
    pixels = np.zeros((count, 8, 8, 3), "uint8")
    return keras_vq.data.from_arrays(pixels, **options)


@pytest.mark.parametrize(
    "data, size",
    [
        (lambda: _pipeline(19, batch_size=8), 3),
        (lambda: _pipeline(14, batch_size=7), 7),
        (lambda: _pipeline(14, batch_size=7, repeat=True), 7),
        (lambda: Batches([IMAGES], 5), 5),
    ],
    ids=["last", "full", "endless", "PyDataset"],
)
def test_refused_before_the_first_step(data, size, model):
    with pytest.raises(ValueError, match=f"batch of {size} images cannot be"):
        model.fit(data(), verbose=0)
    assert number(model.steps) == 0


def test_batch_that_nobody_could_foresee(model):
    model.adapt(IMAGES)
    with pytest.raises(ValueError, match="another number of images cannot be"):
        model.fit(Batches([IMAGES[:15]], 4), shuffle=False, verbose=0)
    # The steps before it count.
    assert number(model.steps) == 3


def test_last_batch_that_no_step_needs(model):
    data = _pipeline(19, batch_size=8)
    model.fit(data, steps_per_epoch=2, verbose=0)
    assert number(model.steps) == 2

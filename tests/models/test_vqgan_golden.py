"""A VQGAN and its training step give the values that PyTorch gave once."""

import json

import keras
import numpy as np
import pytest
import small_vqgan as small

from tests.models import golden_vqgan

VALUES = json.loads(golden_vqgan.PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model_and_images():
    return golden_vqgan.make()


def test_reconstruction_and_codes(model_and_images):
    model, images = model_and_images
    np.testing.assert_array_equal(model.encode(images), VALUES["codes"])
    want = np.array(VALUES["reconstruction"])
    error = np.linalg.norm(np.asarray(model(images))[0] - want)
    assert error < 1e-5 * np.linalg.norm(want)


def test_training_step(model_and_images):
    model, images = model_and_images
    model.compile(
        small.sgd(golden_vqgan.RATE),
        discriminator_optimizer=small.sgd(golden_vqgan.RATE),
        run_eagerly=True,
    )
    images = keras.ops.convert_to_tensor(images)
    logs = model.train_on_batch(images, return_dict=True)
    for name, want in VALUES["terms"].items():
        np.testing.assert_allclose(
            logs[name], want, rtol=1e-4, atol=1e-7, err_msg=name
        )
    pair = model.optimizer
    sides = (
        (pair.generator, _generator_variables(model)),
        (pair.discriminator, model.discriminator.trainable_weights),
    )
    for (optimizer, variables), wanted in zip(
        sides, VALUES["gradients"], strict=True
    ):
        largest = max(norm for norm, _ in wanted)
        gradients = small.gradients(optimizer, variables)
        for variable, gradient, want in zip(
            variables, gradients, wanted, strict=True
        ):
            got = golden_vqgan.summary(gradient)
            scale = max(want[0], 1e-3 * largest)
            np.testing.assert_allclose(
                got, want, rtol=0, atol=2e-4 * scale, err_msg=variable.path
            )


def _generator_variables(model):
    """In the order in which the values are."""
    return [
        *model.encoder.trainable_weights,
        *model.decoder.trainable_weights,
        model.quantizer.codebook,
    ]

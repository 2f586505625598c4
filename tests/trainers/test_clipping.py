"""`clipnorm` against a clipped step of SGD in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import decoder, encoder, images

from keras_vq.layers import VectorQuantizer
from keras_vq.models import VQAutoencoder

RATE = 0.5


def _make(dtype=None):
    # 8 codes for 32 latents: rows of the codebook get several gradients.
    start = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    return VQAutoencoder(
        encoder(dtype=dtype),
        VectorQuantizer(8, 4, codebook_initializer=start, dtype=dtype),
        decoder(dtype=dtype),
        dtype=dtype,
    )


def _gradients(model, batch):
    with tf.GradientTape() as tape:
        losses = model.generator_losses(batch)["losses"]
        total = model.total_loss(losses)
    gradients = tape.gradient(total, model.trainable_variables)
    return [np.asarray(tf.convert_to_tensor(g), "float64") for g in gradients]


def _clipped_step(weights, gradients, clipnorm):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    factor = clipnorm / norm if norm > clipnorm else 1.0
    return norm, [
        w - RATE * factor * g for w, g in zip(weights, gradients, strict=True)
    ]


def _fit(model, batch, **arguments):
    model.compile(keras.optimizers.SGD(RATE), **arguments)
    dataset = tf.data.Dataset.from_tensors(batch)
    model.fit(dataset, verbose=0)


@pytest.mark.parametrize("clipnorm", [0.1, 100.0])
@pytest.mark.parametrize("parts", [1, 2])
def test_one_device(clipnorm, parts):
    model, batch = _make(), images(8, 8, 8, 3)
    weights = [np.asarray(v, "float64") for v in model.trainable_variables]
    norm, expected = _clipped_step(weights, _gradients(model, batch), clipnorm)
    assert 0.2 < norm < 50
    _fit(model, batch, clipnorm=clipnorm, accumulation_steps=parts)
    for variable, want in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, want, atol=1e-5)


@pytest.mark.parametrize("replicas", ["two_replicas", "four_replicas"])
def test_replicas_clip_the_gradient_of_the_whole_batch(replicas, request):
    strategy = request.getfixturevalue(replicas)
    batch = images(8, 8, 8, 3)
    # Halves of unlike size: clipping each by itself would differ.
    batch[:4] *= 0.1
    model = _make()
    weights = [np.asarray(v, "float64") for v in model.trainable_variables]
    norm, expected = _clipped_step(weights, _gradients(model, batch), 0.1)
    assert norm > 0.2
    with strategy.scope():
        mirrored = _make()
        mirrored.set_weights(model.get_weights())
        _fit(mirrored, batch, clipnorm=0.1)
    for variable, want in zip(
        mirrored.trainable_variables, expected, strict=True
    ):
        got = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_scaled_losses_are_clipped_by_their_true_norm():
    batch = images(8, 8, 8, 3)
    model = _make("mixed_float16")
    weights = [np.asarray(v, "float64") for v in model.trainable_variables]
    _, expected = _clipped_step(weights, _gradients(model, batch), 0.1)
    _fit(model, batch, clipnorm=0.1)
    assert int(model.skipped_steps) == 0
    moved = 0
    for variable, want, old in zip(
        model.trainable_variables, expected, weights, strict=True
    ):
        np.testing.assert_allclose(variable, want, atol=1e-3)
        moved += ((np.asarray(variable, "float64") - old) ** 2).sum()
    assert np.sqrt(moved) == pytest.approx(0.1 * RATE, rel=1e-3)
